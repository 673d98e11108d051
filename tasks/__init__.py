"""Plug-ins: one file per data set. Imported as `pet_bench.tasks`."""
