"""Results in others' formats, a module each."""
