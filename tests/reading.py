"""Reads sources and checks what every source guarantees."""

import numpy as np
import tensorflow as tf


def read(source, batch_size, start=0):
    """Returns all batches, after checking that they follow each other."""
    batches = list(source.batches(batch_size, start))
    position = start
    for batch in batches:
        assert batch.start == position
        assert 0 < batch.num_rows <= batch_size
        for leaf in tf.nest.flatten(batch.inputs):
            assert type(leaf) is np.ndarray
            assert leaf.shape[0] == batch.num_rows
        position += batch.num_rows
    return batches


def rows(source, batch_size=4, start=0):
    """Returns all rows of a source with one input."""
    return np.concatenate([b.inputs for b in read(source, batch_size, start)])


def sizes(source, batch_size, start=0):
    """Returns the number of rows of every batch."""
    return [batch.num_rows for batch in read(source, batch_size, start)]


class Recorder:
    """An array-like that records the requested slices."""

    def __init__(self, array):
        self.array = array
        self.shape = array.shape
        self.dtype = array.dtype
        self.slices = []

    def __getitem__(self, key):
        self.slices.append((key.start, key.stop))
        return self.array[key]

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("read whole")


class Tracked:
    """A generator of parts that records how far it was read and that it was closed."""

    def __init__(self, parts):
        self.num_given = 0
        self.is_closed = False
        self.generator = self._give(parts)

    def _give(self, parts):
        try:
            for part in parts:
                self.num_given += 1
                yield part
        except GeneratorExit:
            self.is_closed = True
            raise
