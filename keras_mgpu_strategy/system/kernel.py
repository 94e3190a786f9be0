"""Whether this process is a kernel: that of Jupyter, Colab, Kaggle or VS Code."""

import sys


def in_kernel() -> bool:
    """Whether what is displayed appears below a cell, unlike in IPython's terminal."""
    try:
        # A kernel has imported IPython before the user's first line.
        shell = sys.modules["IPython"].get_ipython()
        return shell.kernel is not None
    except Exception:  # no IPython, one half imported, or a shell without a kernel
        return False
