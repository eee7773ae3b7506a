"""Checks and measures this project on a GPU: `python -m benchmarks.gpu --help`."""
