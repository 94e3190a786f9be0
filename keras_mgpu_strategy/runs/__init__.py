"""Runs: preparing them, running them, and saving results to memory or files."""
