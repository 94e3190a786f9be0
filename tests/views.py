"""The named views, computed by NumPy, and what Keras predicts on them."""

from functools import partial

import numpy as np
import tensorflow as tf


def _quarters(count):
    return partial(np.rot90, k=count, axes=(1, 2))


def _flip(axis):
    return partial(np.flip, axis=axis)


# Each with its inverse.
TURNS = {
    "flip_left_right": (_flip(2), _flip(2)),
    "flip_up_down": (_flip(1), _flip(1)),
    "rot90": (_quarters(1), _quarters(-1)),
    "rot180": (_quarters(2), _quarters(2)),
    "rot270": (_quarters(3), _quarters(-3)),
}


def of_images(function, nest):
    """A nest, with a function applied to its arrays of four axes."""
    return tf.nest.map_structure(
        lambda array: function(array) if np.ndim(array) == 4 else array, nest
    )


def predictions(model, rows, views, **options):
    """What `model.predict` gives on each view, turned back."""
    found = []
    for view in views:
        forward, inverse = TURNS.get(view, (np.copy, np.copy))
        outputs = model.predict(of_images(forward, rows), verbose=0, **options)
        found.append(of_images(inverse, outputs))
    return found


def mean(predicted):
    """The mean of nests of arrays."""
    return tf.nest.map_structure(lambda *arrays: np.mean(arrays, axis=0), *predicted)


def stack(predicted):
    """Nests of arrays along a new axis 1."""
    return tf.nest.map_structure(lambda *arrays: np.stack(arrays, axis=1), *predicted)
