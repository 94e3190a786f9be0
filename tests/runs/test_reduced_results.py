"""Results that the device reduces or casts: the best classes, and other dtypes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from tests import file_runs, helpers
from tests.resuming import X, fail, write

BATCH = 8
ENGINES = pytest.mark.parametrize("engine", ["threads", "mirrored"])


def on_two(strategies, model, **options):
    with strategies[2].scope():
        return mgpu.Predictor(model, **options)


def steps_and_classes():
    """Scores for each step and for each row, in which many classes are equal."""
    inputs = keras.Input((2,))
    steps = keras.layers.Reshape((3, 4))(keras.layers.Dense(12)(inputs))
    signs = keras.ops.sign(keras.layers.Dense(6)(inputs))
    model = keras.Model(inputs, {"steps": [steps], "signs": signs})
    return file_runs.with_weights(model, seed=3)


@pytest.mark.parametrize(
    ("engine", "jit_compile"),
    [("threads", False), ("threads", True), ("mirrored", False)],
)
def test_the_best_classes_are_those_of_numpy(strategies, engine, jit_compile):
    options = {"engine": engine, "jit_compile": jit_compile}
    predictor = on_two(strategies, steps_and_classes(), **options)
    outputs = predictor.predict(X, BATCH, verbose=0)
    results = predictor.predict_top_k(X, 4, BATCH, verbose=0)
    pairs = [("steps", 0), ("signs",)]
    for path in pairs:
        output, result = outputs, results
        for key in path:
            output, result = output[key], result[key]
        classes, scores = helpers.top_k(output, 4)
        assert (result["classes"].dtype, result["scores"].dtype) == ("int32", "float32")
        np.testing.assert_array_equal(result["classes"], classes)
        np.testing.assert_array_equal(result["scores"], scores)
    few = predictor.predict_top_k(X[:0], 2, verbose=0)
    assert few["steps"][0]["scores"].shape == (0, 3, 2)


def test_the_best_classes_of_logits(strategies):
    predictor = on_two(strategies, file_runs.classifier(None))
    probabilities = predictor.predict_proba(X, BATCH, verbose=0, from_logits=True)
    result = predictor.predict_top_k(X, 2, BATCH, verbose=0, from_logits=True)
    classes, scores = helpers.top_k(probabilities, 2)
    np.testing.assert_array_equal(result["classes"], classes)
    np.testing.assert_array_equal(result["scores"], scores)


@ENGINES
def test_too_many_classes_are_found_before_any_work(strategies, engine, tmp_path):
    predictor = on_two(strategies, file_runs.classifier(), engine=engine)

    def batches():
        raise AssertionError("the input was read")
        yield

    message = r"k=4 is more than the 3 classes of .*shape \(None, 3\)"
    with pytest.raises(ValueError, match=message):
        predictor.predict_top_k(batches(), 4, verbose=0)
    with pytest.raises(ValueError, match=message):
        path = tmp_path / "o.npy"
        predictor.predict_to(path, batches(), method="predict_top_k", k=4)
    assert not list(tmp_path.iterdir())
    sigmoid = on_two(strategies, file_runs.two_headed(), engine=engine)
    with pytest.raises(ValueError, match=r"shape \(None, 1\).*Call predict_classes"):
        sigmoid.predict_top_k(batches(), 1, verbose=0)


class Undeclared(keras.Model):
    """Three scores for each row; does not declare its outputs."""

    def call(self, inputs):
        return tf.stack([inputs[:, 0], -inputs[:, 0], inputs[:, 1]], axis=1)


def test_too_many_classes_are_found_when_the_model_is_traced(strategies):
    predictor = on_two(strategies, Undeclared())
    with pytest.raises(ValueError, match="k=4 is more than the 3 classes"):
        predictor.predict_top_k(X, 4, BATCH, verbose=0)
    result = predictor.predict_top_k(X, 1, BATCH, verbose=0)
    expected = np.stack([X[:, 0], -X[:, 0], X[:, 1]], axis=1)
    np.testing.assert_array_equal(result["classes"][:, 0], expected.argmax(axis=1))


@pytest.mark.parametrize(
    ("engine", "dtype"),
    [("threads", "float64"), ("threads", "float16"), ("mirrored", "float16")],
)
def test_floats_of_every_method_are_cast(strategies, engine, dtype):
    model = file_runs.classifier()
    whole = on_two(strategies, model, engine=engine)
    predictor = on_two(strategies, model, engine=engine, output_dtype=dtype)
    expected = whole.predict(X, BATCH, verbose=0).astype(dtype)
    for found in (
        predictor.predict(X, BATCH, verbose=0),
        predictor.predict_proba(X, BATCH, verbose=0, strict=True),
        np.concatenate([b.outputs for b in predictor.predict_iter(X, BATCH)]),
    ):
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected)
    close = {"rtol": 1e-3 if dtype == "float16" else 1e-6}
    parts = [*predictor.predict_batches([X[:3], X[3:]]), predictor.predict_on_batch(X)]
    for found, rows in zip(parts, (expected[:3], expected[3:], expected), strict=True):
        assert found.dtype == dtype
        np.testing.assert_allclose(found, rows, **close)
    classes = predictor.predict_classes(X, BATCH, verbose=0)
    assert classes.dtype == "int64"
    best = predictor.predict_top_k(X, 2, BATCH, verbose=0)
    whole_best = whole.predict_top_k(X, 2, BATCH, verbose=0)
    assert (best["classes"].dtype, best["scores"].dtype) == ("int32", dtype)
    np.testing.assert_array_equal(best["classes"], whole_best["classes"])
    np.testing.assert_array_equal(best["scores"], whole_best["scores"].astype(dtype))


def test_only_floats_are_cast(strategies):
    inputs = keras.Input((2,), name="x")
    outputs = {
        "double": keras.layers.Rescaling(1 / 3, dtype="float64")(inputs),
        "bool": inputs > 0,
        "int": keras.ops.cast(inputs, "int16"),
        "brain": keras.ops.cast(inputs, "bfloat16"),
    }
    model = keras.Model(inputs, outputs)
    found = on_two(strategies, model, output_dtype="float32").predict(X, verbose=0)
    dtypes = {name: values.dtype for name, values in found.items()}
    floats = {"double": "float32", "brain": "float32"}
    assert dtypes == {"bool": bool, "int": "int16", **floats}
    np.testing.assert_allclose(found["double"], X.astype("float64") / 3, rtol=1e-6)
    labels = on_two(strategies, file_runs.labelling(), output_dtype="float16")
    assert set(labels.predict(X, verbose=0)) <= {b"a", "bb, \u00e4".encode(), b"c" * 40}


def test_a_precision_of_its_own_and_rows_of_all_lengths(strategies):
    options = {"precision": "bfloat16", "output_dtype": "float16"}
    predictor = on_two(strategies, file_runs.classifier(), **options)
    found = predictor.predict(X, BATCH, verbose=0)
    whole = on_two(strategies, file_runs.classifier(), precision="bfloat16")
    expected = whole.predict(X, BATCH, verbose=0)
    np.testing.assert_array_equal(found, expected.astype("float16"))
    echo = keras.Sequential([keras.Input((None, 2)), keras.layers.Rescaling(2.0)])
    lengths = [file_runs.sequences(2, length, 0) for length in (3, 5)]
    ragged = on_two(strategies, echo, output_dtype="float16").predict(
        iter(lengths), verbose=0
    )
    assert isinstance(ragged, tf.RaggedTensor) and ragged.dtype == tf.float16
    np.testing.assert_array_equal(ragged[3], (2 * lengths[1][1]).astype("float16"))


def test_saved_models(strategies, tmp_path):
    model = file_runs.classifier()
    model.export(tmp_path / "model", verbose=False)
    with strategies[2].scope():
        predictor = mgpu.load(tmp_path / "model", output_dtype="float16")
    expected = on_two(strategies, model).predict_top_k(X, 2, BATCH, verbose=0)
    found = predictor.predict_top_k(X, 2, BATCH, verbose=0)
    np.testing.assert_array_equal(found["classes"], expected["classes"])
    assert found["scores"].dtype == "float16"
    with pytest.raises(ValueError, match="k=5 is more than the 3 classes"):
        predictor.predict_top_k(X, verbose=0)


@pytest.mark.parametrize("suffix", file_runs.SUFFIXES)
@pytest.mark.parametrize("dtype", [None, "float16"])
def test_files_hold_the_best_classes(strategies, tmp_path, dtype, suffix):
    path = tmp_path / f"o{suffix}"
    predictor = on_two(strategies, file_runs.classifier(), output_dtype=dtype)
    write(predictor, path, X, method="predict_top_k", k=2)
    expected = predictor.predict_top_k(X, 2, BATCH, verbose=0)
    if suffix == ".parquet":  # which has no float16 that every reader knows
        expected["scores"] = expected["scores"].astype("float32")
    file_runs.assert_holds(path, expected)


def test_only_the_same_run_is_resumed(strategies, tmp_path, monkeypatch):
    file_runs.make_small(monkeypatch, flushes=True)
    path, model = tmp_path / "o.npy", file_runs.classifier()
    predictor = on_two(strategies, model)
    half = on_two(strategies, model, output_dtype="float16")
    options = {"method": "predict_top_k", "k": 2}
    fail(predictor, path, "array", 40, **options)
    given = file_runs.Array(X)
    for other, k, message in (
        (predictor, 1, "k: 2 before, 1 now"),
        (half, 2, "output dtype: None before, 'float16' now"),
    ):
        with pytest.raises(ValueError, match=message):
            write(other, path, given, method="predict_top_k", k=k, resume=True)
    write(predictor, path, given, **options, resume=True)
    file_runs.assert_holds(path, predictor.predict_top_k(X, 2, BATCH, verbose=0))


def test_numbers_beyond_float16_are_reported(strategies, tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Rescaling(1e6)])
    predictor = on_two(strategies, model, output_dtype="float16")
    rows = np.zeros((20, 2), np.float32)
    rows[7, 0] = 1
    message = r"infinite in 1 rows: 7\. float16 ends at 65504\. Look at"
    with pytest.warns(UserWarning, match=message):
        write(predictor, tmp_path / "o.npy", rows, method="predict")
    assert np.isinf(np.load(tmp_path / "o.npy")[7, 0])


def test_nan_among_the_scores_is_found(strategies, tmp_path):
    rows = X.copy()
    rows[11, 1] = np.nan
    model = keras.Sequential([keras.Input((2,)), keras.layers.Rescaling(2.0)])
    predictor = on_two(strategies, model)
    best = predictor.predict_top_k(rows, 1, BATCH, verbose=0)
    assert np.isnan(best["scores"][11, 0]) and best["classes"][11, 0] == 1
    with pytest.raises(ValueError, match="infinite in 1 rows: 11"):
        options = {"method": "predict_top_k", "k": 1, "on_nonfinite": "raise"}
        write(predictor, tmp_path / "o.npy", rows, **options)
