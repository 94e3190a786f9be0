"""For child processes that are given an environment of their own."""

import os


def inherited_variables():
    """The variables that a child always shares with this process.

    They set how TensorFlow computes, and start coverage.py if it is measuring.
    """
    kept = ("COVERAGE_", "TF_ENABLE_ONEDNN_OPTS")
    return {k: v for k, v in os.environ.items() if k.startswith(kept)}
