"""The literature's numbers, as package data (`pet_bench.report.published` reads them)."""
