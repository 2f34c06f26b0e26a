"""Measures each path beside its floor in the same run: `make bench`."""
