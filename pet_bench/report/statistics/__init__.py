"""Is a difference real? Tests over examples and over seeds, their correction, effect sizes, ranks over tasks.

A benchmark's score is drawn twice: another test set of the same kind and another seed would each have given another
(`tests`). `marking` says what is bold in a table, `two` compares two methods.
"""

from pet_bench.report.statistics.effects import Effect, effect, mcnemar
from pet_bench.report.statistics.examples import Folders, Untested, check_comparable, example_scores, predictions
from pet_bench.report.statistics.marking import Marks, significantly_best
from pet_bench.report.statistics.notes import rank_notes
from pet_bench.report.statistics.ranking import Ranks, ranks
from pet_bench.report.statistics.tests import LEVEL, Test, both, holm, paired_bootstrap, resampled_means, seed_test
from pet_bench.report.statistics.two import compare, disagreements, pairs, right_and_wrong

__all__ = [
    "LEVEL", "Effect", "Folders", "Marks", "Ranks", "Test", "Untested", "both", "check_comparable", "compare",
    "disagreements", "effect", "example_scores", "holm", "mcnemar", "paired_bootstrap", "pairs", "predictions",
    "rank_notes", "ranks", "resampled_means", "right_and_wrong", "seed_test", "significantly_best",
]  # fmt: skip
