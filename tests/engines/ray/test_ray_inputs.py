"""Every input, method and sink on two processes gives the bits of one local device."""

import itertools
import os

import keras
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.engines.ray import cluster as connecting
from tests import file_runs, inputs_zoo
from tests.conformance import test_inputs_and_sinks as matrix
from tests.lifetime import calling, forking

pytestmark = pytest.mark.slow

BATCH, NUM_ROWS = 4, 61
SHAPE = (8, 8, 3)
PIXELS = np.random.default_rng(1).integers(0, 256, (NUM_ROWS, *SHAPE), np.uint8)
ROWS = PIXELS.astype(np.float32)


@pytest.fixture(scope="module")
def model():
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(4, 3, strides=2)]
    outputs = inputs = keras.Input(SHAPE, name="x")
    for layer in [*layers, keras.layers.Flatten(), keras.layers.Dense(3, "softmax")]:
        outputs = layer(outputs)
    return file_runs.with_weights(keras.Model(inputs, outputs), 7)


@pytest.fixture(scope="module")
def local(model, strategies):
    with strategies[1].scope():
        return mgpu.Predictor(model)


@pytest.fixture(scope="module")
def predictor(model, cluster):
    return mgpu.Predictor(
        model, engine="ray", ray=mgpu.RayOptions(num_actors=2, cpus_per_actor=1)
    )


@pytest.fixture(scope="module")
def expected(local):
    return local.predict(ROWS, BATCH, verbose=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The rows as files of several kinds."""
    folder = tmp_path_factory.mktemp("rows")
    np.save(folder / "x.npy", ROWS)
    (folder / "images").mkdir()
    for row, pixels in enumerate(PIXELS):
        name = os.fspath(folder / "images" / f"{row:03}.png")
        tf.io.write_file(name, tf.io.encode_png(pixels))
    return folder


def generator():
    for start in range(0, NUM_ROWS, 7):
        yield ROWS[start : start + 7]


@pytest.fixture(scope="module")
def of_vectors(cluster):
    model = matrix.model_of((inputs_zoo.NUM_FEATURES,))
    ray = mgpu.RayOptions(num_actors=2, cpus_per_actor=1)
    return mgpu.Predictor(model, engine="ray", ray=ray)


@pytest.mark.parametrize("kind", [k for k in inputs_zoo.INPUTS if k != "images"])
def test_inputs_and_sinks(kind, of_vectors, tmp_path):
    matrix.check(kind, lambda *_: of_vectors, tmp_path)
    report = of_vectors.report
    assert report.rows == sum(report.replica_rows)


def test_methods(predictor, local):
    for method, logits in itertools.product(
        ("predict_proba", "predict_classes"), (False, True)
    ):
        mine, theirs = getattr(predictor, method), getattr(local, method)
        np.testing.assert_array_equal(
            mine(ROWS, 2 * BATCH, 0, from_logits=logits),
            theirs(ROWS, BATCH, 0, from_logits=logits),
        )


def test_iter_and_batches(predictor, expected):
    stop = 0
    for batch in predictor.predict_iter(ROWS, 2 * BATCH):
        assert batch.start == stop
        stop = batch.stop
        np.testing.assert_array_equal(batch.outputs, expected[batch.start : stop])
        batch.outputs[:] = 0  # not a view of memory that Ray shares
    assert stop == NUM_ROWS
    sizes = [5, 0, 1, 30]
    parts = np.split(ROWS, np.cumsum(sizes))[:4]
    results = list(predictor.predict_batches(iter(parts)))
    assert [len(result) for result in results] == sizes
    np.testing.assert_allclose(np.concatenate(results), expected[:36], rtol=1e-5)


def test_a_run_that_is_left_early_ends(predictor, expected):
    batches = predictor.predict_iter(ROWS, 2)
    first, other = next(batches).outputs, predictor.predict_iter(ROWS, 2)
    second = next(other).outputs  # chunks are cut by how long rows take
    common = min(len(first), len(second))
    np.testing.assert_array_equal(second[:common], first[:common])
    batches.close()
    other.close()
    result = predictor.predict(ROWS, 2 * BATCH, verbose=0)
    np.testing.assert_array_equal(result, expected)


def test_several_threads_call_it_at_once(predictor, expected):
    def call(caller):
        for stop in (0, 7, 30):
            rows = slice(caller, caller + stop)
            result = predictor.predict(ROWS[rows], 2 * BATCH, verbose=0)
            np.testing.assert_allclose(result, expected[rows], rtol=1e-5)

    calling.at_once([lambda caller=caller: call(caller) for caller in range(4)])


def test_a_forked_process_is_refused_and_leaves_the_others_alone(predictor, expected):
    def child():
        with forking.refused():
            predictor.predict(ROWS, verbose=0)
        predictor._runner.backend.close()  # as at the end of its interpreter

    assert forking.forked(child) == 0
    result = predictor.predict(ROWS, 2 * BATCH, verbose=0)
    np.testing.assert_array_equal(result, expected)


def test_automatic_batches(predictor, expected):
    result = predictor.predict(ROWS, verbose=0)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_columns_beside_the_results(predictor, expected, folder, tmp_path):
    path, ids = tmp_path / "out.parquet", [f"r{row}" for row in range(NUM_ROWS)]
    table = pd.DataFrame({"x": list(ROWS.reshape(NUM_ROWS, -1)), "id": ids})
    table.to_parquet(tmp_path / "in.parquet", row_group_size=9)
    for x in (tmp_path / "in.parquet", {"x": ROWS, "id": ids}):
        how = {"verbose": 0, "keep": "id", "overwrite": True}
        predictor.predict_to(path, x, 2 * BATCH, **how)
        found = pq.read_table(path).to_pandas()
        assert found["id"].tolist() == ids
        np.testing.assert_array_equal(np.stack(found["output"]), expected)


def test_shards(predictor, expected, folder, tmp_path):
    path = tmp_path / "out.parquet"
    for index in (1, 0, 2):
        predictor.predict_to(
            path, folder / "x.npy", 2 * BATCH, verbose=0, shard=(index, 3)
        )
    table = pq.read_table(path).to_pandas().sort_values("row")
    assert table["row"].tolist() == list(range(NUM_ROWS))
    np.testing.assert_allclose(np.stack(table["output"]), expected, rtol=1e-5)


def test_local_and_remote_runs_resume_each_other(
    predictor, local, expected, folder, tmp_path
):
    def fails_late():
        yield from itertools.islice(generator(), 6)
        raise KeyError("on purpose")

    path = tmp_path / "out.npy"
    how = {"verbose": 0, "method": "predict", "resume": True}
    with pytest.raises(KeyError):
        predictor.predict_to(path, fails_late(), 2 * BATCH, **how)
    local.predict_to(path, generator(), BATCH, **how)
    np.testing.assert_array_equal(np.load(path), expected)


def test_images_that_cannot_be_read(predictor, local, expected, folder, tmp_path):
    names = sorted((folder / "images").iterdir())
    for row in (5, 40):
        names[row] = tmp_path / f"bad{row}.png"
        names[row].write_bytes(b"no image")
    skipping = mgpu.files.Images(names, on_bad_file="skip")
    result = predictor.predict(skipping, 2 * BATCH, verbose=0)
    assert np.flatnonzero(np.isnan(result).all(axis=1)).tolist() == [5, 40]
    good = np.setdiff1d(np.arange(NUM_ROWS), [5, 40])
    np.testing.assert_array_equal(result[good], expected[good])
    mine, theirs = tmp_path / "mine.parquet", tmp_path / "theirs.parquet"
    predictor.predict_to(mine, skipping, 2 * BATCH, verbose=0)
    local.predict_to(theirs, skipping, BATCH, verbose=0)
    tables = [pq.read_table(path).sort_by("row") for path in (mine, theirs)]
    assert tables[0].equals(tables[1])
    assert tables[0]["output"].null_count == 2
    delivered = []
    with pytest.raises(ValueError, match=r"Row 5: the image file .*bad5.png"):
        for batch in predictor.predict_iter(mgpu.files.Images(names), 2 * BATCH):
            delivered.append(batch.outputs)
    np.testing.assert_array_equal(np.concatenate(delivered), expected[:5])


def test_what_the_user_calls_on_images_travels(predictor, local, folder):
    def upside_down(images):
        return images[:, ::-1]

    images = mgpu.files.Images(folder / "images", preprocess=upside_down)
    np.testing.assert_array_equal(
        predictor.predict(images, 2 * BATCH, verbose=0),
        local.predict(images, BATCH, verbose=0),
    )


def test_a_file_that_is_replaced_between_two_runs(predictor, tmp_path):
    path = tmp_path / "x.npy"
    for value in (1, 2):  # the same name, shape and size, another file
        np.save(tmp_path / "next.npy", np.full((9, *SHAPE), value, np.float32))
        os.replace(tmp_path / "next.npy", path)
        result = predictor.predict(path, 2 * BATCH, verbose=0)
        other = predictor.predict(np.load(path), 2 * BATCH, verbose=0)
        np.testing.assert_array_equal(result, other)


def test_errors_of_inputs_come_before_any_work(predictor):
    with pytest.raises(ValueError, match="received shape"):
        predictor.predict(ROWS[:, :4], verbose=0)
    with pytest.raises(AttributeError, match="lives in other processes"):
        _ = predictor.model


def test_more_processes_than_are_free_are_an_error(predictor, model, monkeypatch):
    monkeypatch.setattr(connecting, "_FREE_SECONDS", 0.5)
    with pytest.raises(ValueError, match="99 processes of 1 CPU core each were asked"):
        mgpu.Predictor(model, engine="ray", ray=mgpu.RayOptions(num_actors=99))
    with pytest.raises(ValueError, match="Another Predictor of this process may hold"):
        mgpu.Predictor(model, engine="ray", ray=mgpu.RayOptions(num_actors=8))


def test_a_model_that_cannot_be_read(cluster, tmp_path):
    path = tmp_path / "broken.keras"
    path.write_bytes(b"PK\x03\x04 no model")
    with pytest.raises(ValueError) as here:
        mgpu.load(path)
    with pytest.raises(ValueError) as there:
        mgpu.load(
            path, engine="ray", ray=mgpu.RayOptions(num_actors=1, cpus_per_actor=1)
        )
    assert str(here.value) == str(there.value)
    assert os.fspath(path) in str(there.value)
