"""Reads file sources and checks what every source guarantees."""

import numpy as np
import tensorflow as tf

POSITIONS = [(1, 0), (3, 0), (4, 1), (7, 6), (16, 0), (64, 9), (5, 22), (5, 23)]
"""Pairs of batch size and start for inputs of 23 rows."""


def one(shape, dtype=tf.float32, name="a"):
    """What a model with one input declares."""
    return tf.TensorSpec([None, *shape], dtype, name=name)


def read(source, batch_size, start=0):
    """Returns the rows of every input, after checking how they are cut."""
    pieces, position = [], start
    for batch in source.batches(batch_size, start):
        assert batch.start == position
        assert 0 < batch.num_rows <= batch_size
        flat = tf.nest.flatten(batch.inputs)
        assert all(type(leaf) is np.ndarray for leaf in flat)
        assert all(len(leaf) == batch.num_rows for leaf in flat)
        tf.nest.assert_same_structure(batch.inputs, source.spec)
        if pieces:
            assert len(pieces[-1][0]) == batch_size, "a short batch before the last"
        pieces.append(flat)
        position += batch.num_rows
    specs = tf.nest.flatten(source.spec)
    columns = list(zip(*pieces, strict=True)) or [[] for _ in specs]
    flat = [_joined(c, s) for c, s in zip(columns, specs, strict=True)]
    return tf.nest.pack_sequence_as(source.spec, flat)


def _joined(pieces, spec):
    dtype = spec.dtype.as_numpy_dtype
    empty = np.zeros((0, *spec.shape[1:]), dtype)
    assert all(piece.dtype == np.dtype(dtype) for piece in pieces)
    return np.concatenate([empty, *pieces])


def check_rows(source, expected, positions=POSITIONS):
    """Checks a source against arrays in the structure of its spec, several times."""
    for batch_size, start in positions:
        found = read(source, batch_size, start)
        tf.nest.map_structure(
            lambda mine, theirs, first=start: np.testing.assert_array_equal(
                mine, theirs[first:]
            ),
            found,
            expected,
        )
