"""A reduced matrix: the Ray engine gives the same bits as the local one.

One model stands for many, since a process takes seconds to start: several inputs by
name, several outputs, convolution, normalization, a recurrent layer, a custom one.
"""

import os
import time

import keras
import numpy as np
import pytest

import keras_mgpu_strategy as mgpu
from tests.conformance import zoo
from tests.engines.ray import acting

pytestmark = pytest.mark.slow

layers = keras.layers
BATCHES = (1, 3, 8)
MOST_ROWS = 3 * 3 * 8 + 2


class Twice(layers.Layer):
    """A class that the processes know only from this test."""

    def call(self, inputs):
        return inputs + inputs


def many_in_one():
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    image, steps = keras.Input((8, 8, 3), name="image"), keras.Input((6, 3), name="s")
    seen = layers.BatchNormalization()(layers.Conv2D(4, 3)(zoo.NeverEmpty()(image)))
    outputs = {
        "dense": layers.Dense(2)(layers.Concatenate()([Twice()(left), right])),
        "image": seen,
        "steps": layers.LSTM(4)(zoo.NeverEmpty()(steps)),
        "label": layers.Rescaling(10.0)(right),
    }
    model = keras.Model([left, right, image, steps], outputs)
    random = np.random.default_rng(3)
    model.set_weights([random.random(w.shape) - 0.4 for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def model():
    return many_in_one()


@pytest.fixture(scope="module")
def rows(model):
    random = np.random.default_rng(5)
    return {
        tensor.name: random.random((MOST_ROWS, *tensor.shape[1:]), np.float32)
        for tensor in model.inputs
    }


@pytest.fixture(scope="module")
def expected(model, rows, strategies):
    """Per-replica batch -> the local engine's results."""
    with strategies[1].scope():
        local = mgpu.Predictor(model)
    return {batch: local.predict(rows, batch, verbose=0) for batch in BATCHES}


def row_counts(batch, num_replicas):
    """0..3R+1, and around one and three global batches."""
    step = batch * num_replicas
    around = {b + shift for b in (step, 3 * step) for shift in (-1, 0, 1)}
    return sorted(set(range(3 * num_replicas + 2)) | around)


@pytest.mark.parametrize("num_actors", [1, 2, 3])
def test_the_same_bits(num_actors, model, rows, expected, cluster):
    predictor = mgpu.Predictor(
        model, engine="ray", ray=mgpu.RayOptions(num_actors=num_actors)
    )
    assert predictor.num_replicas == num_actors
    assert len(set(predictor.devices)) == num_actors
    where = f"{num_actors} process{'es' * (num_actors > 1)}"
    devices = ", ".join(predictor.devices)
    assert f"('{model.name}', {where}: {devices}; ray, float32)" in repr(predictor)
    for batch in BATCHES:
        for num_rows in row_counts(batch, num_actors):
            some = {name: array[:num_rows] for name, array in rows.items()}
            result = predictor.predict(some, batch * num_actors, verbose=0)
            message = f"R={num_actors} batch={batch} rows={num_rows}"
            assert predictor.report.rows == num_rows, message
            for name, reference in expected[batch].items():
                assert result[name].dtype == reference.dtype, message
                np.testing.assert_array_equal(
                    result[name], reference[:num_rows], err_msg=f"{message} {name}"
                )
    pids = acting.pids_of(predictor)
    del predictor  # and with it its processes
    deadline = time.monotonic() + 60
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_running, pids))


def nested():
    inside, outside = keras.Input((4,)), keras.Input((4,), name="x")
    pool = layers.Dense(3, name="pool")(inside)
    inner = keras.Model(inside, layers.Dense(2)(pool), name="inner")
    return keras.Model(outside, layers.Dense(2, name="head")(inner(Twice()(outside))))


def test_outputs_of_layers(strategies, cluster, tmp_path):
    model, outputs = nested(), ["head", "inner/pool"]
    rows = np.random.default_rng(5).random((11, 4), np.float32)
    model.save(tmp_path / "model.keras")
    ray = mgpu.RayOptions(num_actors=2)
    same = {"engine": "ray", "ray": ray, "outputs": outputs}
    with strategies[1].scope():
        expected = mgpu.Predictor(model, outputs=outputs).predict(rows, 3, verbose=0)
    results = mgpu.Predictor(model, **same).predict(rows, 6, verbose=0)
    assert list(results) == outputs
    for name in outputs:
        np.testing.assert_array_equal(results[name], expected[name])
    same["outputs"] = "inner/pol"
    with pytest.raises(ValueError, match=r"The nearest names are \['inner/pool'"):
        mgpu.Predictor(model, **same)
    objects = {"Twice": Twice}
    with pytest.raises(ValueError, match=r"The nearest names are \['inner/pool'"):
        mgpu.load(tmp_path / "model.keras", custom_objects=objects, **same)


def test_best_classes_and_cast_floats(cluster, model, rows, strategies):
    inputs = keras.Input((4,), name="left")
    scores = keras.layers.Dense(9)(inputs)
    with strategies[1].scope():
        local = mgpu.Predictor(keras.Model(inputs, scores))
    predictor = mgpu.Predictor(
        local.model,
        engine="ray",
        output_dtype="float16",
        ray=mgpu.RayOptions(num_actors=2),
    )
    some = rows["left"]
    best = local.predict_top_k(some, 3, 8, verbose=0)
    found = predictor.predict_top_k(some, 3, 16, verbose=0)
    np.testing.assert_array_equal(found["classes"], best["classes"])
    np.testing.assert_array_equal(found["scores"], best["scores"].astype("float16"))
    halves = local.predict(some, 8, verbose=0).astype("float16")
    result = predictor.predict(some, 16, verbose=0)
    assert result.dtype == np.float16
    np.testing.assert_array_equal(result, halves)
    with pytest.raises(ValueError, match="k=10 is more than the 9 classes"):
        predictor.predict_top_k(some, 10, verbose=0)


def is_running(pid):
    return os.path.exists(f"/proc/{pid}")


@pytest.fixture
def saved(tmp_path):
    """Models in two files, and one that returns something else in a third."""
    paths = [tmp_path / name for name in ("one.keras", "two.h5", "wide.keras")]
    for path, width in zip(paths, (3, 3, 4), strict=True):
        keras.utils.set_random_seed(width + len(path.name))
        flat = [layers.Conv2D(2, 3), layers.Flatten()]
        head = layers.Dense(width, activation="softmax")
        model = keras.Sequential([keras.Input((6, 6, 1)), *flat, head])
        model.save(path)
    return paths


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_several_models_and_views(cluster, saved, strategies, tmp_path):
    rows = np.random.default_rng(5).random((25, 6, 6, 1), np.float32)
    own = mgpu.View(lambda images: images * 0.5)
    same = {"combine": "mean_std", "views": ["identity", "rot90", own]}
    with strategies[1].scope():
        local = mgpu.load(saved[:2], **same)
    ray = {"engine": "ray", "ray": mgpu.RayOptions(num_actors=2)}
    remote = mgpu.load(saved[:2], **same, **ray)
    expected = local.predict(rows, 4, verbose=0)
    results = remote.predict(rows, 8, verbose=0)
    assert list(results) == ["mean", "std"]
    for name, values in expected.items():
        np.testing.assert_array_equal(results[name], values)
    # Each resumes what the other began, and no other ensemble does.
    output = tmp_path / "out.npy"
    local.predict_to(output, rows, batch_size=4, method="predict", verbose=0)
    how = {"method": "predict", "resume": True, "verbose": 0}
    remote.predict_to(output, rows, batch_size=8, **how)
    del remote  # and its processes, for which there is no room beside others
    other = mgpu.load(saved[1::-1], **same, **ray)
    with pytest.raises(ValueError, match="another run wrote it .*model"):
        other.predict_to(output, rows, batch_size=8, **how)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_models_that_do_not_go_together_are_named(cluster, saved):
    ray = {"engine": "ray", "ray": mgpu.RayOptions(num_actors=1)}
    with pytest.raises(ValueError) as raised:
        mgpu.load(saved, **ray)
    message = f"model 2 ({str(saved[2])!r}) returns (None, 4)"
    assert str(raised.value).startswith(message)
    saved[1].write_bytes(saved[1].read_bytes()[:3000])
    with pytest.raises(ValueError) as raised:
        mgpu.load(saved[:2], **ray)
    assert str(saved[1]) in str(raised.value)
