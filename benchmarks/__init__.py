"""Measures the running stack: `make bench`, or `python -m benchmarks --help`."""
