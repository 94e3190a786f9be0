"""For children that are given an environment of their own."""

import os


def coverage_variables():
    """What tells coverage.py to measure a child too; nothing where it does not run."""
    return {k: v for k, v in os.environ.items() if k.startswith("COVERAGE_")}
