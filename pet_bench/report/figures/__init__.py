"""Figures: each is drawn by a function here and written by `write`."""

from pet_bench.report.figures.ablation import ablation_figure
from pet_bench.report.figures.curves import learning_curves_figure
from pet_bench.report.figures.gain import relative_gain_figure
from pet_bench.report.figures.gates import gates_figure
from pet_bench.report.figures.look import write
from pet_bench.report.figures.pareto import pareto_figure
from pet_bench.report.figures.parts import question_types_figure

__all__ = [
    "ablation_figure", "gates_figure", "learning_curves_figure", "pareto_figure", "question_types_figure",
    "relative_gain_figure", "write",
]  # fmt: skip
