"""Runs that take a set time, and terminals to watch them on."""

import contextlib
import os
import pty
import re

import numpy as np

from keras_mgpu_strategy.report import StageClock
from keras_mgpu_strategy.runs.progress import show_progress
from keras_mgpu_strategy.types import HostBatch


class Time:
    """A clock that moves only when it is set."""

    def __init__(self):
        self.seconds = 1000.0  # a monotonic clock may begin anywhere

    def __call__(self):
        return self.seconds


class Run:
    """A run whose batches take a set time, spent waiting for input."""

    def __init__(self, num_replicas=1):
        self.now = Time()
        self.clock = StageClock(num_replicas)
        self.clock.start()
        self.clock.add("input", 1.0)

    def batches(self, steps, start=0):
        """Batches of `(rows, seconds)`, or `(rows, seconds, "compile")`."""
        for num_rows, seconds, *compiles in steps:
            if compiles:
                self.clock.add("compile", 1e-12)
            self.now.seconds += seconds
            self.clock.add_delivered(num_rows, 8)
            yield HostBatch(start, np.zeros((num_rows, 1), np.float32))
            start += num_rows

    def show(self, steps, rows, verbose=2, **options):
        batches = self.batches(steps, rows.start)
        return show_progress(
            batches, rows, self.clock, verbose, now=self.now, **options
        )


class Terminal:
    """The two ends of a pseudo-terminal."""

    def __init__(self):
        self.main, side = pty.openpty()
        os.set_blocking(self.main, False)
        self.stream = os.fdopen(side, "w")
        self._raw = b""

    def read(self):
        """All that was written so far."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.main, 65536):
                self._raw += data
        return self._raw.decode()

    def rows(self):
        """What a reader sees: the last state of each line."""
        drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.read())
        lines = drawn.replace("\r\n", "\n").split("\n")
        return [line.rpartition("\r")[2].rstrip() for line in lines]

    def hang_up(self):
        if self.main is not None:
            os.close(self.main)
            self.main = None
