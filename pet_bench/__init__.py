"""pet-bench: which parameter-efficient tuning method, at what cost, on which tasks, and is the difference real?"""

__version__ = "0.1.0"
