"""Calls of a Predictor in every way, on rows that identify their caller."""

import contextlib
import gc
import os
import threading
import time

import numpy as np

from tests import helpers

SECONDS = 300


def rows_of(caller, num_rows, num_columns=2):
    """Rows that no other caller has; their largest value may be in any column."""
    rows = helpers.numbered_rows(num_rows, num_columns) + np.float32(10_000 * caller)
    places = np.arange(num_rows)[:, np.newaxis] * 7 + np.arange(num_columns) * 3
    return rows + (places % 5).astype(np.float32)


def doubled(rows):
    """The results of these tests' model."""
    return 2 * rows + 1


def check(results, rows):
    """Compares with the model's results, which are exact."""
    np.testing.assert_array_equal(results, doubled(rows))


def by_predict(predictor, rows):
    check(predictor.predict(rows, verbose=0), rows)


def by_stream(predictor, rows):
    parts = iter(np.array_split(rows, 4))
    check(predictor.predict(parts, batch_size=None, verbose=0), rows)


def by_iterator(predictor, rows):
    check(helpers.joined(predictor.predict_iter(rows, 16)), rows)


def by_batches(predictor, rows):
    parts = np.array_split(rows, 3)
    for result, part in zip(predictor.predict_batches(parts), parts, strict=True):
        check(result, part)


def by_classes(predictor, rows):
    classes = predictor.predict_classes(rows, verbose=0)
    np.testing.assert_array_equal(classes, np.argmax(rows, axis=1))


WAYS = (by_predict, by_stream, by_iterator, by_batches, by_classes)


def at_once(functions):
    """Runs all functions at once, each in its own thread; raises their errors."""
    together, errors = threading.Barrier(len(functions)), []

    def run(function):
        try:
            together.wait()
            function()
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=run, args=(function,), daemon=True)
        for function in functions
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + SECONDS
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
        assert not thread.is_alive(), "a thread waits for ever"
    if errors:
        raise errors[0]


def open_files():
    """The number of files, sockets and pipes that this process has open."""
    return len(os.listdir("/proc/self/fd"))


def resident_bytes():
    """The memory of this process."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def nothing_left(predictor):
    """Fails if a thread or a file is left, or if the Predictor cannot be used again."""
    files = open_files()
    with helpers.no_thread_left():
        yield
    by_predict(predictor, rows_of(0, 37))
    by_iterator(predictor, rows_of(0, 37))
    assert open_files() == files
