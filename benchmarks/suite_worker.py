"""The program of the process that measures one job of `predict_benchmark.py`."""

import sys

from suite.jobs import Job
from suite.measure import run

from keras_mgpu_strategy.benchmark.processes import serve

if __name__ == "__main__":
    serve(lambda **fields: run(Job(**fields)), *sys.argv[1:])
