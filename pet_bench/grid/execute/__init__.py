"""Running the trials of a grid: here or on Ray, through whatever dies meanwhile."""
