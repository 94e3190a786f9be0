"""Ctrl-C at many points of a run, by real signals."""

import ast
import contextlib
import functools
import gc
import os
import pathlib
import signal
import sys

import keras
import numpy as np
import pytest

import keras_mgpu_strategy
from tests import helpers
from tests.lifetime import calling

PACKAGE = str(pathlib.Path(keras_mgpu_strategy.__file__).parent)


@functools.cache
def blocks_of(path):
    """The first line, first body line and last line of each `with` in a module."""
    nodes = ast.walk(ast.parse(pathlib.Path(path).read_text()))
    blocks = [node for node in nodes if isinstance(node, ast.With)]
    return [(block.lineno, block.body[0].lineno, block.end_lineno) for block in blocks]


def leaves_a_block(path, before, now):
    """Whether a step from one line to another returns to the head of a `with`."""
    return any(
        first <= now < body <= before <= last for first, body, last in blocks_of(path)
    )


class At:
    """Sends SIGINT before the main thread runs the n-th line of the package.

    Except when it leaves a `with`: the interpreter checks for no signals between the
    last line of a block and the call of `__exit__`.
    """

    def __init__(self, line):
        self.left = line

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self._call)
        return self

    def __exit__(self, *_):
        sys.settrace(self.before)

    def _call(self, frame, event, argument):
        path, before = frame.f_code.co_filename, frame.f_lineno
        if not path.startswith(PACKAGE):
            return None

        def trace(frame, event, argument):
            nonlocal before
            if event == "line":
                if not leaves_a_block(path, before, frame.f_lineno):
                    self._count()
                before = frame.f_lineno
            return trace

        return trace

    def _count(self):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)


def in_memory(predictor, rows):
    calling.check(predictor.predict(rows, 16, verbose=0), rows)


def from_a_stream(predictor, rows):
    """Always run by threads of the run, however few rows there are."""
    parts = iter(np.array_split(rows, 10))
    calling.check(helpers.joined(predictor.predict_iter(parts, 16)), rows)


@contextlib.contextmanager
def no_collection():
    """The collector ends what is left of earlier runs; Python drops a Ctrl-C in it."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def is_interrupted(way, predictor, rows, line):
    """Interrupts a run before a line; False if it had fewer lines than others."""
    with no_collection(), At(line) as point:
        try:
            way(predictor, rows)
        except KeyboardInterrupt:
            return True
    assert point.left > 0, f"the interrupt at line {line} was lost"
    return False


@pytest.mark.slow
@pytest.mark.parametrize("way", [in_memory, from_a_stream])
def test_at_lines_all_over_a_run(way, engine, predictor):
    rows = calling.rows_of(1, 100)
    way(predictor, rows)
    with At(10**6) as counted:
        way(predictor, rows)
    num_lines = 10**6 - counted.left
    assert num_lines > 100
    # A run on "mirrored" starts a tf.data pipeline and takes ten times as long.
    num_points = {"threads": 300, "mirrored": 20}[engine]
    num_interrupted = 0
    for point in range(num_points):
        line = 1 + point * num_lines // num_points
        with helpers.no_thread_left():
            num_interrupted += is_interrupted(way, predictor, rows, line)
        way(predictor, rows)
    assert num_interrupted > num_points / 2


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


class Interrupts(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_predict_batch_end(self, batch, logs=None):
        if batch == self.step:
            interrupt()


def interrupting_batches(step):
    """Interrupts the main thread from the thread that reads, and continues."""
    for number, rows in enumerate(helpers.numbered_batches(40)):
        if number == step:
            interrupt()
        yield rows


def by_a_callback(predictor, step):
    callbacks = [Interrupts(step)]
    predictor.predict(helpers.numbered_rows(300), 16, verbose=0, callbacks=callbacks)


def by_a_generator(predictor, step):
    predictor.predict(interrupting_batches(step), verbose=0)


def by_the_consumer(predictor, step):
    for number, _ in enumerate(predictor.predict_iter(interrupting_batches(-1), 8)):
        if number == step:
            interrupt()


@pytest.mark.parametrize("way", [by_a_callback, by_a_generator, by_the_consumer])
def test_from_the_users_code(way, engine, predictor):
    for step in range(0, 18, 2 if engine == "threads" else 8):
        with calling.nothing_left(predictor), pytest.raises(KeyboardInterrupt):
            way(predictor, step)
