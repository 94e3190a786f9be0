"""For children that are given an environment of their own."""

import os


def inherited_variables():
    """What a child is to share with this process in any case.

    How TensorFlow computes, and what tells coverage.py to measure, where it does.
    """
    kept = ("COVERAGE_", "TF_ENABLE_ONEDNN_OPTS")
    return {k: v for k, v in os.environ.items() if k.startswith(kept)}
