"""Each path of payonce beside its floor, measured in the same run: `python -m benchmarks`."""
