"""A process forked from one in which TensorFlow runs gets an error, and no hang."""

import subprocess
import sys

import pytest

from tests import children
from tests.lifetime import forking

CASES = [
    forking.a_forked_process_is_refused_and_its_parent_goes_on,
    forking.a_forked_process_can_leave_an_iterator_behind,
    forking.a_process_of_multiprocessing_is_refused,
    forking.a_process_forked_after_tensorflow_started_is_refused,
    forking.a_process_forked_before_tensorflow_starts_loads_a_model,
]


@pytest.mark.parametrize("case", CASES)
def test_in_a_process_of_its_own(case, engine):
    children.run(case, engine)


IMPORTED_LATE = """
import os, signal, sys
import tensorflow as tf

tf.constant(1.0)  # starts TensorFlow
pid = os.fork()
if pid:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
signal.alarm(180)
import keras_mgpu_strategy as mgpu
try:
    mgpu.load("model.keras")
except RuntimeError as error:
    print(error, flush=True)
os._exit(0)  # as multiprocessing ends: TensorFlow's own clean-up waits for its threads
"""


@pytest.mark.slow
def test_the_package_may_be_imported_in_the_forked_process():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IMPORTED_LATE],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert "was forked from it. TensorFlow's threads do not come" in done.stdout
