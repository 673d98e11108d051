"""One trial from spec to result: build → train → evaluate → record."""
