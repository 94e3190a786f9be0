"""A user's `predict_step` is given what Keras gives it."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_mgpu_strategy as mgpu

LIBRARIES = {"keras": keras, "tf_keras": tf_keras}
SEQUENCES = {"keras": keras.utils.PyDataset, "tf_keras": tf_keras.utils.Sequence}
NUM_ROWS = 11
X = np.random.default_rng(0).random((NUM_ROWS, 3))
IDS = np.arange(NUM_ROWS) + 2**40
NAMES = np.array([f"row {row}" for row in range(NUM_ROWS)])
TIMES = 1.7e9 + np.arange(NUM_ROWS) / 3
Named = collections.namedtuple("Named", "x ids")  # noqa: PYI024 - users have these

ARRAYS = {
    "x": X,
    "integers": IDS,
    "list": [X, X[:, :2]],
    "tuple": (X, IDS),
    "dict": {"a": X, "ids": IDS},
    "nested": [{"a": X}, X],
}
ELEMENTS = {
    "x": X,
    "(x,)": (X,),
    "(x, ids)": (X, IDS),
    "(x, ids, times)": (X, IDS, TIMES),
    "four": (X, IDS, TIMES, IDS),
    "dict": {"a": X, "ids": IDS, "times": TIMES},
    "(dict, ids)": ({"a": X}, IDS),
    "((a, b),)": ((X, X),),
    "(x, (ids, times))": (X, (IDS, TIMES)),
    "(x, {ids})": (X, {"ids": IDS, "times": TIMES}),
    "(x, {names})": (X, {"names": NAMES}),
    "(x, None)": (X, None),
    "(x, None, ids)": (X, None, IDS),
    "named tuple": Named(X, IDS),
    "[x, ids]": [X, IDS],
}


def model_of(lib):
    """A model that returns what its step is given, with complex zeros for None."""

    class Returning(lib.Model):
        def predict_step(self, data):
            rows = tf.shape(tf.nest.flatten(data)[0])[:1]
            none = tf.zeros(rows, tf.complex64)
            return {
                "data": tf.nest.map_structure(lambda a: none if a is None else a, data)
            }

    inputs = lib.Input((3,))
    return Returning(inputs, lib.layers.Dense(1)(inputs))


def described(data):
    """Containers, dtypes and shapes."""
    if isinstance(data, dict):
        return {key: described(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return type(data).__name__, [described(value) for value in data]
    return data.dtype, data.shape


def in_batches(nest, size):
    """The element of each batch."""
    for start in range(0, NUM_ROWS, size):
        yield cut(nest, slice(start, start + size))


def cut(nest, rows):
    return tf.nest.map_structure(lambda a: None if a is None else a[rows], nest)


def dataset(nest, size):
    parts = [tf.data.Dataset.from_tensors(part) for part in in_batches(nest, size)]
    joined = parts[0]
    for part in parts[1:]:
        joined = joined.concatenate(part)
    return joined


def sequence(base):
    class Batches(base):
        def __init__(self, nest, size):
            if base is keras.utils.PyDataset:
                super().__init__()
            self.parts = list(in_batches(nest, size))

        def __len__(self):
            return len(self.parts)

        def __getitem__(self, index):
            return self.parts[index]

    return Batches


def streams(library, kind):
    """Functions that make a kind of stream from the elements of batches."""
    make_sequence = sequence(SEQUENCES[library])
    return {"dataset": dataset, "sequence": make_sequence, "generator": in_batches}[
        kind
    ]


@pytest.fixture(scope="module", params=["threads", "mirrored"])
def engine(request):
    return request.param


@pytest.fixture(scope="module")
def predictors(strategies, engine):
    """Library -> a model and its Predictor on three replicas."""
    made = {library: model_of(lib) for library, lib in LIBRARIES.items()}
    with strategies[3].scope():
        return {
            library: (model, mgpu.Predictor(model, engine=engine))
            for library, model in made.items()
        }


def assert_as_keras(pair, make, method="predict", **options):
    """Compares what the steps of a model and of its Predictor are given."""
    pair[0].compile()  # tf_keras would treat a named tuple as the previous tuple
    expected, results = (getattr(p, method)(make(), **options) for p in pair)
    assert described(results) == described(expected)
    tf.nest.map_structure(np.testing.assert_array_equal, results, expected)


@pytest.mark.parametrize("library", LIBRARIES)
def test_arrays(library, predictors):
    pair = predictors[library]
    for data in ARRAYS.values():
        assert_as_keras(pair, lambda data=data: data, batch_size=6, verbose=0)
        assert_as_keras(pair, lambda data=data: data, "predict_on_batch")


REFUSED_BY = {
    # Keras makes one tensor of a list in a data set.
    "keras dataset": {"[x, ids]"},
    "tf_keras dataset": {"[x, ids]"},
    "keras generator": {"x", "dict", "(x, {names})", "[x, ids]"},
    "tf_keras generator": {"four"},
    "keras sequence": {"four", "(x, {names})", "(x, None)", "(x, None, ids)"},
    "tf_keras sequence": {"four"},
}


@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras says so
@pytest.mark.parametrize("kind", ["dataset", "generator", "sequence"])
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", ELEMENTS)
def test_streams(name, library, kind, predictors):
    make = streams(library, kind)
    if name not in REFUSED_BY[f"{library} {kind}"]:
        for size in (4, NUM_ROWS):
            assert_as_keras(
                predictors[library],
                lambda size=size: make(ELEMENTS[name], size),
                verbose=0,
            )
