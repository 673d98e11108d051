"""Whether a place can run a grid: facts of every machine there is, and what they mean."""
