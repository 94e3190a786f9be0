"""Finds the modules of the folder `benchmarks/`."""

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parents[2] / "benchmarks"))
