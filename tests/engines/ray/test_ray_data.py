"""`BatchPredictor`: block by block, and in a pipeline of Ray Data from file to file."""

import inspect

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.ray_data import BatchPredictor

BATCH = 8


class CountsTraces(keras.layers.Layer):
    """Counts how often a function is traced, which runs its code."""

    traces = 0

    def call(self, inputs):
        CountsTraces.traces += 1
        assert inputs.shape[0] in (None, BATCH)
        return inputs * 1.0


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two inputs and two outputs, by name."""
    a, b = keras.Input((3,), name="a"), keras.Input((2, 2), name="b")
    outputs = {"x": keras.layers.Dense(2)(a), "y": keras.layers.Rescaling(2.0)(b)}
    path = tmp_path_factory.mktemp("models") / "two.keras"
    keras.Model({"a": a, "b": b}, outputs).save(path)
    return path


def test_outputs_of_layers(tmp_path):
    x = keras.Input((3,), name="x")
    first = keras.layers.Rescaling(2.0, name="z")(x)
    keras.Model(x, keras.layers.Rescaling(3.0, name="a")(first)).save(
        tmp_path / "m.keras"
    )
    how = {"keep": [], "method": "predict", "layer_outputs": ["z", "a"]}
    rows = numbered(5, 3)
    for names in (None, ["double", "sixfold"]):
        found = BatchPredictor(tmp_path / "m.keras", outputs=names, **how)({"x": rows})
        double, sixfold = names or how["layer_outputs"]
        assert {*found} == {double, sixfold}
        np.testing.assert_array_equal(found[double], 2 * rows)
        np.testing.assert_array_equal(found[sixfold], 6 * rows)


@keras.saving.register_keras_serializable("optional")
class Added(keras.layers.Layer):
    def call(self, x, y=None):
        return x if y is None else x + y


@pytest.mark.skipif(
    "optional" not in inspect.signature(keras.Input).parameters,
    reason="this version of Keras has no optional inputs",
)
def test_a_block_without_an_optional_input(tmp_path):
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b", optional=True)
    keras.Model([a, b], Added()(a, b)).save(tmp_path / "added.keras")
    how = {"outputs": ["sum"], "keep": [], "method": "predict"}
    predict = BatchPredictor(tmp_path / "added.keras", **how)
    rows = numbered(5, 3)
    np.testing.assert_array_equal(predict({"a": rows})["sum"], rows)
    np.testing.assert_array_equal(predict({"a": rows, "b": rows})["sum"], rows * 2)
    with pytest.raises(ValueError, match=r"lacks the model inputs \['a'\]"):
        predict({"b": rows})


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    inputs = keras.Input((3,), name="features")
    outputs = keras.layers.Dense(4, "softmax")(CountsTraces()(inputs))
    path = tmp_path_factory.mktemp("models") / "one.keras"
    keras.Model(inputs, outputs).save(path)
    return path


def objects(rows):
    """A column as fixed-size lists arrive: an array of arrays, nested ones too."""
    column = np.empty(len(rows), object)
    for index, row in enumerate(rows):
        column[index] = objects(row) if np.ndim(row) > 1 else np.asarray(row)
    return column


def numbered(num_rows, *shape, start=0):
    rows = np.arange(start, start + num_rows, dtype=np.float32)
    return np.broadcast_to(rows.reshape(-1, *[1] * len(shape)), (num_rows, *shape))


def block_of(num_rows, make=np.array, start=0):
    return {
        "id": np.arange(start, start + num_rows),
        "a": make(numbered(num_rows, 3, start=start)),
        "b": make(numbered(num_rows, 2, 2, start=start)),
    }


@pytest.fixture(scope="module")
def predict_two(two):
    return BatchPredictor(
        two, columns={"a": "a", "b": "b"}, method="predict", batch_size=BATCH
    )


@pytest.mark.parametrize("make", [np.array, objects])
@pytest.mark.parametrize("num_rows", [1, 2, 7, 8, 9, 30, 0])
def test_blocks_of_any_size_and_kind(make, num_rows, predict_two, two):
    block = block_of(num_rows, make)
    result = predict_two(block)
    assert list(result) == ["id", "a", "b", "x", "y"]
    assert all(len(column) == num_rows for column in result.values())
    assert result["a"] is block["a"]
    plain = block_of(num_rows)
    np.testing.assert_array_equal(result["y"], 2 * plain["b"])
    assert result["x"].shape == (num_rows, 2)
    if num_rows:
        model = keras.models.load_model(two)
        expected = model.predict({key: plain[key] for key in "ab"}, verbose=0)
        np.testing.assert_allclose(result["x"], expected["x"], rtol=1e-5, atol=1e-6)


def test_ragged_blocks_compile_once(one):
    CountsTraces.traces = 0
    objects = {"CountsTraces": CountsTraces}
    predict = BatchPredictor(one, batch_size=BATCH, custom_objects=objects)
    predict({"any": numbered(3, 3)})
    traces = CountsTraces.traces
    for num_rows in (1, 30, 8, 0, 5, 64, 17):
        result = predict({"any": numbered(num_rows, 3)})
        assert result["output"].shape == (num_rows, 4)
    assert CountsTraces.traces <= traces + 1  # a chunk of several batches, once


def test_names_of_columns(one):
    with keras.utils.custom_object_scope({"CountsTraces": CountsTraces}):
        predict = BatchPredictor(
            one,
            columns="pixels",
            outputs=["label"],
            keep=["id"],
            method="predict_classes",
            batch_size=BATCH,
            custom_objects={"CountsTraces": CountsTraces},
        )
    block = {"id": np.arange(4), "pixels": numbered(4, 3), "text": np.array(["t"] * 4)}
    result = predict(block)
    assert list(result) == ["id", "label"]
    assert result["label"].dtype == np.int64


def test_the_best_classes_are_columns(two):
    how = {"method": "predict_top_k", "k": 2, "output_dtype": "float16", "keep": ["a"]}
    result = BatchPredictor(two, **how)(block_of(3))
    assert list(result) == ["a", "x_classes", "x_scores", "y_classes", "y_scores"]
    assert result["x_classes"].shape == (3, 2)
    assert result["y_scores"].dtype == np.float16
    with pytest.raises(ValueError, match="k=2 with method='predict_proba'"):
        BatchPredictor("nowhere.keras", k=2)


ERRORS = [
    ({"columns": "z"}, block_of(2), ValueError, r"no columns \['z'\] among"),
    ({"keep": ["z"]}, block_of(2), ValueError, r"no columns \['z'\] among"),
    ({"outputs": ["x"]}, block_of(2), ValueError, "names 1 columns, .* has 2 outputs"),
    ({"outputs": ["a", "y"]}, block_of(2), ValueError, r"has columns \['a'\] already"),
    ({}, pd.DataFrame({"a": [1]}), TypeError, "block of type DataFrame"),
    (
        {},
        {"a": objects([[1.0, 2.0, 3.0], [1.0]]), "b": numbered(2, 2, 2)},
        ValueError,
        "Rows of the column 'a' differ in shape",
    ),
]


@pytest.mark.parametrize(("options", "block", "error", "message"), ERRORS)
def test_errors_say_what_to_do(options, block, error, message, two):
    how = {"columns": {"a": "a", "b": "b"}, "method": "predict"} | options
    with pytest.raises(error, match=message):
        BatchPredictor(two, **how)(block)


def test_bad_arguments_are_errors_before_the_model_is_read():
    with pytest.raises(ValueError, match="method='classify'"):
        BatchPredictor("nowhere.keras", method="classify")
    with pytest.raises(ValueError, match="batch_size=0. Expected an integer"):
        BatchPredictor("nowhere.keras", batch_size=0)
    with pytest.raises(TypeError, match="batch_size=2.5 of type float"):
        BatchPredictor("nowhere.keras", batch_size=2.5)


def write_rows(folder, *sizes):
    """Files with lists of fixed size, one of them without rows."""
    start = 0
    for number, size in enumerate(sizes):
        a = pa.array(numbered(size, 3, start=start).ravel())
        b = pa.array(numbered(size, 4, start=start).ravel())
        pairs = pa.FixedSizeListArray.from_arrays(b, 2)
        columns = {
            "id": np.arange(start, start + size),
            "a": pa.FixedSizeListArray.from_arrays(a, 3),
            "b": pa.FixedSizeListArray.from_arrays(pairs, 2),
        }
        pq.write_table(pa.table(columns), folder / f"{number}.parquet")
        start += size
    return start


@pytest.mark.slow
def test_from_parquet_to_parquet(two, cluster, tmp_path):
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    (tmp_path / "rows").mkdir()
    num_rows = write_rows(tmp_path / "rows", 5, 0, 17, 1, 30)
    ray.data.read_parquet(str(tmp_path / "rows")).map_batches(
        BatchPredictor,
        fn_constructor_kwargs={
            "path": str(two),
            "columns": {"a": "a", "b": "b"},
            "keep": ["id"],
            "method": "predict",
            "batch_size": BATCH,
        },
        compute=ray.data.ActorPoolStrategy(size=1),
        batch_size=16,
        num_cpus=1,
    ).write_parquet(str(tmp_path / "out"))
    table = pq.read_table(tmp_path / "out").to_pandas().sort_values("id")
    assert table["id"].tolist() == list(range(num_rows))
    assert list(table) == ["id", "x", "y"]
    found = np.stack([np.ravel(row) for row in table["y"]])
    np.testing.assert_array_equal(found, 2 * numbered(num_rows, 4))
    a, b = numbered(num_rows, 3), numbered(num_rows, 2, 2)
    expected = mgpu.load(two).predict({"a": a, "b": b}, BATCH, verbose=0)
    found = np.stack([np.ravel(row) for row in table["x"]])
    np.testing.assert_allclose(found, expected["x"], rtol=1e-5, atol=1e-5)
