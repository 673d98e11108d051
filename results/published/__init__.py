"""The literature's numbers and the styles that print them: CSV and YAML beside each other (`pet_bench.report.published`
and `pet_bench.report.tables.style` read them)."""

from pathlib import Path

from pet_bench.report.tables.style import read_style

HERE = Path(__file__).parent
VLPET_TABLE2 = read_style(HERE / "vlpet-table2.yaml")
VLPET_TABLE9 = read_style(HERE / "vlpet-table9.yaml")
VLPET_FIGURE1 = read_style(HERE / "vlpet-figure1.yaml")
VLPET_CHECKPOINTS = read_style(HERE / "vlpet-checkpoints.yaml")
VLPET_VIDEO = read_style(HERE / "vlpet-video.yaml")
