"""The fuzzer of `benchmarks/fuzz.py`: `case` and `mutations` say what a case is, `sandbox` tries one, and each other
module knows one kind of input."""
