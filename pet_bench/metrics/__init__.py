"""Scorers, one file per metric, each equal to the official scorer."""
