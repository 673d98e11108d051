"""Is a difference real? Tests over examples and over seeds, their correction, effect sizes, ranks over tasks.

A benchmark's score is drawn twice: another test set of the same kind and another seed would each have given another
(`tests`). `marking` says what is bold in a table, `two` compares two methods.
"""

from pet_bench.report.statistics.columns import Column, columns, comparisons
from pet_bench.report.statistics.effects import Effect, effect, mcnemar
from pet_bench.report.statistics.examples import Folders, Untested, check_comparable, example_scores, predictions
from pet_bench.report.statistics.marking import Marks, significantly_best
from pet_bench.report.statistics.notes import rank_notes
from pet_bench.report.statistics.power import LIMIT, Design, Part, Spread, examples_needed, seeds_needed
from pet_bench.report.statistics.ranking import Ranks, ranks
from pet_bench.report.statistics.spread import Seen, seen, spread, usual_seeds
from pet_bench.report.statistics.tests import (
    LEVEL,
    PAIRED,
    Test,
    both,
    holm,
    joint_test,
    paired_bootstrap,
    resampled_means,
    seed_test,
    together,
)
from pet_bench.report.statistics.two import compare, disagreements, pairs, right_and_wrong

__all__ = [
    "LEVEL", "LIMIT", "PAIRED", "Column", "Design", "Effect", "Folders", "Marks", "Part", "Ranks", "Seen", "Spread",
    "Test", "Untested", "both", "check_comparable", "columns", "compare", "comparisons", "disagreements", "effect",
    "example_scores", "examples_needed", "holm", "joint_test", "mcnemar", "paired_bootstrap", "pairs", "predictions",
    "rank_notes", "ranks", "resampled_means", "right_and_wrong", "seed_test", "seeds_needed", "seen",
    "significantly_best", "spread", "together", "usual_seeds",
]  # fmt: skip
