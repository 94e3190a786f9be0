"""Absent inputs: None if Keras takes it, or a name left out of a file."""

import inspect
import itertools

import h5py
import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf
import zarr

import keras_mgpu_strategy as mgpu

pytestmark = [
    pytest.mark.skipif(
        "optional" not in inspect.signature(keras.Input).parameters,
        reason="this version of Keras has no optional inputs",
    ),
    pytest.mark.filterwarnings("ignore:The structure of `inputs`"),
]

ROWS = np.random.default_rng(1).normal(size=(29, 3)).astype(np.float32)
MORE = ROWS[::-1].copy()
ENGINES = ["threads", "mirrored"]


def assert_close(result, expected):
    np.testing.assert_allclose(result, expected, 1e-5, 1e-6)


@keras.saving.register_keras_serializable("optional")
class Joined(keras.layers.Layer):
    """Distinguishes which of its inputs are present."""

    def call(self, a=None, b=None):
        if a is None:
            return b * 3.0
        return a * 2.0 if b is None else a - b


def model_of(arrange, *, all_optional=False):
    keras.utils.set_random_seed(1)
    a = keras.Input((3,), name="a", optional=all_optional)
    b = keras.Input((3,), name="b", optional=True)
    outputs = keras.layers.Dense(2, "softmax")(Joined()(a, b))
    return keras.Model(arrange(a, b), outputs)


def named(a, b):
    return {"a": a, "b": b}


def listed(a, b):
    return [a, b]


SHAPES = {
    "dict": (named, [named, listed]),
    "list": (listed, [listed, named, lambda a, b: (a, b)]),
    "tuple": (lambda a, b: (a, b), [lambda a, b: (a, b)]),
    "absent first": (lambda a, b: [b, a], [lambda a, b: [b, a]]),
    "nested": (lambda a, b: {"p": [a, b]}, [lambda a, b: {"p": (a, b)}]),
}


@pytest.mark.parametrize("where", ["inside", "outside"])
@pytest.mark.parametrize("shape", SHAPES)
def test_none_gives_what_keras_gives(shape, where, strategies):
    declared, forms = SHAPES[shape]
    plain = model_of(declared)
    with strategies[3].scope():
        used = model_of(declared) if where == "inside" else plain
        predictors = [mgpu.Predictor(used, engine=engine) for engine in ENGINES]
    for form, second in itertools.product(forms, [None, MORE]):
        x = form(ROWS, second)
        expected = plain.predict(x, verbose=0)
        for predictor in predictors:
            assert_close(predictor.predict(x, 8, verbose=0), expected)


@pytest.fixture(scope="module")
def predictor(strategies):
    with strategies[2].scope():
        return mgpu.Predictor(model_of(named))


@pytest.fixture(scope="module")
def expected():
    return model_of(named).predict(named(ROWS, None), verbose=0)


def test_every_method(predictor, expected, strategies):
    x = named(ROWS, None)
    assert_close(predictor.predict_proba(x, 8, verbose=0), expected)
    classes = predictor.predict_classes(x, 8, verbose=0)
    np.testing.assert_array_equal(classes, expected.argmax(-1))
    parts = [batch.outputs for batch in predictor.predict_iter(x, 8)]
    assert_close(np.concatenate(parts), expected)
    assert_close(predictor.predict_on_batch(x), expected)
    batches = [[None, ROWS[:5]], [None, ROWS[5:]]]
    with strategies[2].scope():
        other = mgpu.Predictor(model_of(lambda a, b: [b, a]))
    parts = list(other.predict_batches((batch,) for batch in batches))
    assert [len(part) for part in parts] == [5, 24]
    assert_close(np.concatenate(parts), expected)
    assert_close(mgpu.predict_proba(model_of(named), x), expected)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return (named(ROWS[index * 8 : index * 8 + 8], None),)


STREAMS = {
    "generator": lambda: (named(part, None) for part in np.split(ROWS, [9, 20])),
    "with targets": lambda: ((named(part, None), 0) for part in np.split(ROWS, [9])),
    "data set": lambda: _data_set(lambda row: named(row, None)),
    "elements": lambda: _data_set(lambda row: (named(row, None), row)),
    "PyDataset": Batches,
}


def _data_set(function):
    return tf.data.Dataset.from_tensor_slices(ROWS).batch(6).map(function)


@pytest.mark.parametrize("kind", STREAMS)
def test_streams(kind, predictor, expected):
    assert_close(predictor.predict(STREAMS[kind](), 8, verbose=0), expected)


def test_a_stream_whose_inputs_change(predictor):
    batches = iter([named(ROWS, None), named(ROWS, MORE)])
    with pytest.raises(ValueError, match=r"^Batch 1 .*an optional input in all"):
        predictor.predict(batches, verbose=0)


def _npz(folder, rows):
    np.savez(folder / "x.npz", **rows)
    return folder / "x.npz"


def _npy(folder, rows):
    np.save(folder / "a.npy", rows["a"])
    return named(folder / "a.npy", None)


def _hdf5(folder, rows):
    with h5py.File(folder / "x.h5", "w") as file:
        file.update(rows)
    return folder / "x.h5"


def _zarr(folder, rows):
    group = zarr.open_group(str(folder / "x.zarr"), mode="w")
    for name, array in rows.items():
        group.create_array(name, data=array)
    return folder / "x.zarr"


def _table(rows):
    return pa.table({name: list(array) for name, array in rows.items()})


def _parquet(folder, rows):
    frame = pd.DataFrame({name: list(array) for name, array in rows.items()})
    frame.to_parquet(folder / "x.parquet")
    return folder / "x.parquet"


def _csv(folder, rows):
    columns = {f"{name}{i}": rows[name][:, i] for name in rows for i in range(3)}
    pd.DataFrame(columns).to_csv(folder / "x.csv", index=False)
    by_input = {name: [f"{name}{i}" for i in range(3)] for name in rows}
    return mgpu.files.Csv(folder / "x.csv", columns=by_input)


FILES = {
    "npz": _npz,
    "npy": _npy,
    "hdf5": _hdf5,
    "zarr": _zarr,
    "parquet": _parquet,
    "csv": _csv,
    "arrow": lambda folder, rows: _table(rows),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_name_left_out_and_one_that_is_needed(kind, predictor, expected, tmp_path):
    def stored(**rows):
        folder = tmp_path / "".join(rows)
        folder.mkdir()
        return FILES[kind](folder, rows)

    assert_close(predictor.predict(stored(a=ROWS), 8, verbose=0), expected)
    if kind == "npy":
        return
    both = predictor.predict(named(ROWS, MORE), verbose=0)
    assert_close(predictor.predict(stored(a=ROWS, b=MORE), 8, verbose=0), both)
    with pytest.raises(ValueError, match=r"'a'"):
        predictor.predict(stored(b=ROWS), verbose=0)


def test_columns_by_the_name_of_the_input(predictor, tmp_path):
    path = _parquet(tmp_path, {"other": ROWS, "b": MORE})
    x = mgpu.files.Parquet(path, columns={"a": "other"})
    expected = model_of(named).predict(named(ROWS, None), verbose=0)
    assert_close(predictor.predict(x, 8, verbose=0), expected)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (named(None, ROWS), r"^x\['a'\] is None, but the model needs .*\['a'\]"),
        ([None, ROWS], r"^x\[0\] is None, but the model needs its inputs \['a'\]"),
        ({"a": ROWS}, r"lacks the model inputs \['b'\]: .* or None for an input"),
        (named(None, None), "a dict of None alone"),
        (ROWS, "is one array .* expected 2 inputs"),
    ],
)
def test_what_keras_refuses(x, message, predictor):
    plain = model_of(named)
    with pytest.raises((ValueError, KeyError)):
        plain.predict(x, verbose=0)
    with pytest.raises(ValueError, match=message):
        predictor.predict(x, verbose=0)


def test_resuming_with_other_inputs_absent(strategies, tmp_path):
    with strategies[2].scope():
        predictor = mgpu.Predictor(model_of(named, all_optional=True))
    out = tmp_path / "out.npy"
    first = lambda: iter([named(ROWS, None)])  # noqa: E731
    predictor.predict_to(out, first(), batch_size=8, verbose=0)
    predictor.predict_to(out, first(), batch_size=8, resume=True, verbose=0)
    expected = model_of(named).predict(named(ROWS, None), verbose=0)
    assert_close(np.load(out), expected)
    with pytest.raises(ValueError, match=r"absent inputs: .*'b': \(\)"):
        second = iter([named(None, ROWS)])
        predictor.predict_to(out, second, batch_size=8, resume=True, verbose=0)


@pytest.mark.parametrize("library", ["keras", "tf_keras"])
def test_a_model_that_declares_nothing(library, strategies):
    lib = pytest.importorskip(library)

    class Sum(lib.Model):
        def __init__(self):
            super().__init__()
            self.dense = lib.layers.Dense(2)

        def call(self, inputs):
            a, b = inputs["a"], inputs.get("b")
            return self.dense(a if b is None else a + b)

    for x in (named(ROWS, None), {"a": ROWS}, named(ROWS, MORE)):
        plain = Sum()
        expected = plain.predict(x, verbose=0)
        with strategies[2].scope():
            predictor = mgpu.Predictor(Sum())
        predictor.predict(x, 8, verbose=0)
        predictor.model.set_weights(plain.get_weights())
        assert_close(predictor.predict(x, 8, verbose=0), expected)
