"""Grids of trials: which there are (`plan`), and running those that are missing (`execute`)."""
