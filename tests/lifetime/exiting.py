"""Ends interpreters in the middle of runs: `python -m tests.lifetime.exiting`.

Each case runs in its own process, which is forked before TensorFlow starts and runs to
the end of this script. Prints for each a line with engine, name, exit code and seconds,
and what it wrote to standard error.
"""

import os
import pathlib
import signal
import struct
import sys
import tempfile
import threading
import time

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.engines import worker_threads
from tests import helpers
from tests.lifetime import calling

SECONDS = 180
KEPT = []


def run_of(predictor, x):
    batches = predictor.predict_iter(x, 8)
    next(batches)
    return batches


def several_runs(predictor):
    KEPT.append(run_of(predictor, helpers.numbered_rows(50_000)))
    KEPT.append(run_of(predictor, helpers.numbered_batches(50)))
    KEPT.append([KEPT, run_of(predictor, helpers.numbered_batches(50))])


def a_run_in_a_thread(predictor):
    thread = threading.Thread(target=lambda: several_runs(predictor))
    thread.start()
    thread.join()


def an_exit_within(predictor):
    for _ in predictor.predict_iter(helpers.numbered_batches(50), 8):
        sys.exit(0)


def an_error_within(predictor):
    for _ in predictor.predict_iter(helpers.numbered_batches(50), 8):
        raise SystemExit("the user's own")


def a_generator_that_waits(predictor):
    worker_threads._MOST_SECONDS = 0.5

    def batches():
        for number, rows in enumerate(helpers.numbered_batches(64, 2**14)):
            if number == 3:
                threading.Event().wait()
            yield rows

    KEPT.append(predictor.predict_iter(batches(), 2 * 64))
    next(KEPT[0])


def a_forked_process(predictor):
    KEPT.append(run_of(predictor, helpers.numbered_batches(50)))
    pid = os.fork()
    if pid:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    else:
        signal.alarm(SECONDS)


def images_that_python_decodes(predictor):
    """Threads that read ahead need the interpreter."""
    folder, side = tempfile.mkdtemp(), 200
    head = struct.pack("<2sIHHI", b"BM", 54 + 3 * side**2, 0, 0, 54)
    head += struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, *[0] * 6)
    for number in range(200):
        pathlib.Path(folder, f"{number}.bmp").write_bytes(head + bytes(3 * side**2))
    images = mgpu.files.Images(folder, (2, 1), flattened)
    KEPT.append(run_of(predictor, images))
    batches = images.open_rows(None).batches(8)
    KEPT.append([KEPT, next(batches), batches])


def flattened(images):
    return images.reshape(len(images), -1)


CASES = [
    ("threads", several_runs),
    ("threads", images_that_python_decodes),
    ("threads", a_run_in_a_thread),
    ("threads", an_exit_within),
    ("threads", an_error_within),
    ("threads", a_generator_that_waits),
    ("threads", a_forked_process),
    ("mirrored", several_runs),
    ("mirrored", a_generator_that_waits),
]


def forked(case, engine):
    """Whether this process is the fork that runs the case."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as errors:
        pid = os.fork()
        if pid == 0:
            signal.alarm(SECONDS)
            os.dup2(errors.fileno(), 2)
            run_case(case, engine)
            return True
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        errors.seek(0)
        text = errors.read().decode().strip()
    seconds = time.monotonic() - began
    print(f"{engine} {case.__name__} {code} {seconds:.1f} {text}", flush=True)
    return False


def run_case(case, engine):
    with mgpu.scope(replicas_per_device=2):
        model = helpers.doubling_model(num_columns=None)
        predictor = mgpu.Predictor(model, engine=engine)
    calling.by_predict(predictor, calling.rows_of(1, 50))
    case(predictor)


if __name__ == "__main__":
    any(forked(case, engine) for engine, case in CASES)
