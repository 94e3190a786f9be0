"""Runs: prepared, run, and brought to memory or into files."""
