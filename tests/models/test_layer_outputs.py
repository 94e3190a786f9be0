"""`outputs=`: the outputs of layers, compared with hand-made models of them."""

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from architectures import LIBRARIES

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy import models
from keras_mgpu_strategy.models.layer_outputs import forget_rest, part_of

ALL = ("x", "enc", "enc/first", "enc/block", "enc/block/pool", "enc/block/last")
ALL += ("enc/mid", "enc/top", "head")
calls = []


class Fails(keras.layers.Layer):
    """Fails when it is run; records that it was traced."""

    def call(self, inputs):
        calls.append(self.name)
        return tf.debugging.check_numerics(inputs / 0.0, "it was computed")


class Twice(keras.layers.Layer):
    """A layer of two outputs."""

    def call(self, inputs):
        calls.append(self.name)
        return inputs + 1.0, inputs * 2.0


def nested(lib):
    """A model in a model in a model, and its parts by name."""
    layers, parts = lib.layers, {}

    def named(layer):
        parts[layer.name] = layer
        return layer

    inside = lib.Input((4,), name="bi")
    pool = named(layers.Dense(5, activation="tanh", name="pool"))(inside)
    last = named(layers.Dense(3, name="last"))(pool)
    block = named(lib.Model(inside, last, name="block"))
    between = lib.Input((4,), name="ei")
    first = named(layers.BatchNormalization(name="first"))(between)
    mid = named(layers.Dense(3, name="mid"))(block(first))
    top = named(layers.Dense(2, name="top"))(layers.Dropout(0.5)(mid))
    enc = named(lib.Model(between, top, name="enc"))
    x = lib.Input((4,), name="x")
    return lib.Model(x, layers.Dense(2, name="head")(enc(x, training=False))), parts


def run(lib, owner, tensor, given):
    return np.asarray(lib.Model(owner.input, tensor)(given, training=False))


def expected_of(lib, model, parts, rows):
    """Path -> outputs of hand-made models."""
    enc, block = parts["enc"], parts["block"]
    found = {"x": rows, "enc": np.asarray(enc(rows, training=False))}
    for name in ("first", "mid", "top"):
        found[f"enc/{name}"] = run(lib, enc, parts[name].output, rows)
    for name in ("pool", "last"):
        tensor, given = parts[name].output, found["enc/first"]
        found[f"enc/block/{name}"] = run(lib, block, tensor, given)
    found["enc/block"] = found["enc/block/last"]
    return found | {"head": np.asarray(model(rows, training=False))}


def nodes_of(parts):
    return [[*part._inbound_nodes, *part._outbound_nodes] for part in parts.values()]


def predicted(model, outputs, rows, **options):
    predictor = mgpu.Predictor(model, outputs=outputs, **options)
    return predictor.predict(rows, batch_size=3, verbose=0)


@pytest.mark.parametrize("in_scope", [False, True])
@pytest.mark.parametrize("lib", LIBRARIES.values(), ids=LIBRARIES)
def test_paths_into_nested_models(lib, in_scope, strategies, rows, assert_same):
    with strategies[2 if in_scope else 1].scope():
        model, parts = nested(lib)
    model.compile("sgd", "mse", jit_compile=False)
    before = nodes_of(parts)
    symbols = {name: layer.output for name, layer in parts.items()}
    expected = expected_of(lib, model, parts, rows)
    with strategies[2].scope():
        assert_same(predicted(model, ["enc/top"], rows), expected["enc/top"])
        for outputs in (["enc/mid", "enc/block/pool"], ALL):
            results = predicted(model, outputs, rows)
            assert list(results) == list(outputs)
            assert_same(results, {path: expected[path] for path in outputs})
    assert nodes_of(parts) == before
    assert all(parts[name].output is symbol for name, symbol in symbols.items())
    weights = model.get_weights()
    model.fit(rows, np.ones((8, 2)), verbose=0)
    assert not all(map(np.array_equal, weights, model.get_weights()))


@pytest.mark.parametrize("engine", ["threads", "mirrored"])
def test_what_comes_after_is_neither_built_nor_computed(engine, strategies, rows):
    x, other = keras.Input((4,), name="x"), keras.Input((2,), name="other")
    pool = keras.layers.Dense(3, name="pool")(x)
    failing = Fails(name="fails")(pool)
    head = keras.layers.Concatenate()([keras.layers.Dense(2)(failing), other])
    model = keras.Model({"x": x, "other": other}, head)
    calls.clear()
    given = {"x": rows, "other": rows[:, :2]}
    with strategies[2].scope():
        predictor = mgpu.Predictor(model, outputs="pool", engine=engine)
        results = predictor.predict(given, batch_size=6, verbose=0)
    np.testing.assert_allclose(results, run(keras, model, pool, given), rtol=1e-5)
    assert not calls
    names = {layer.name for layer in predictor.model.layers}
    assert names == {"x", "other", "pool"}
    with pytest.raises(tf.errors.InvalidArgumentError, match="it was computed"):
        predicted(model, "fails", given, engine=engine)


def test_a_nested_model_runs_once(strategies, rows, run_replicas, assert_same):
    x = keras.Input((4,), name="x")
    inner = keras.Model(x, keras.layers.Add()(Twice(name="twice")(x)), name="inner")
    y = keras.Input((4,))
    model = keras.Model(y, keras.layers.Dense(2, name="head")(inner(y)))
    outputs = ("head", "inner/twice")
    replicated = models.replicate(model, strategies[1], outputs=outputs)
    calls.clear()
    (results,) = run_replicas(replicated, rows)
    assert calls == ["twice"]
    expected = {"head": model(rows), "inner/twice": [rows + 1, rows * 2]}
    assert_same(results, expected)


@pytest.mark.parametrize("lib", LIBRARIES.values(), ids=LIBRARIES)
def test_sequential_models(lib, strategies, rows, assert_same):
    dense = [lib.layers.Dense(5, name="a"), lib.layers.Dense(3, name="b")]
    model = lib.Sequential(dense)
    with pytest.raises(ValueError, match=r"is not built yet.*keras.Input.*build"):
        mgpu.Predictor(model, outputs="a")
    model(rows[:2])  # a batch of 2 must not bind others
    outer = lib.Sequential([lib.Input((4,)), model, lib.layers.Dense(2, name="c")])
    expected = {"a": dense[0](rows), "b": model(rows)}
    with strategies[2].scope():
        assert_same(predicted(model, ["b", "a"], rows), expected)
        results = predicted(outer, [f"{model.name}/a", "c"], rows)
    expected = {f"{model.name}/a": dense[0](rows), "c": outer(rows)}
    assert_same(results, expected)


def test_layers_with_structures(strategies, rows, assert_same):
    x = keras.Input((4,), name="x")
    first, second = Twice(name="twice")(x)
    inner = keras.Model(x, {"b": first, "a": second}, name="inner")
    y = keras.Input((4,))
    model = keras.Model(y, keras.layers.Dense(2)(inner(y)["a"]))
    with strategies[2].scope():
        assert_same(predicted(model, "inner", rows), {"b": rows + 1, "a": rows * 2})
        results = predicted(inner, ["twice"], rows)
    assert_same(list(results), [rows + 1, rows * 2])


def test_precision_and_compile_settings(strategies, rows):
    model, parts = nested(keras)
    model.compile("adam", "mse", jit_compile=False)
    model.fit(rows, np.ones((8, 2)), verbose=0)
    expected = expected_of(keras, model, parts, rows)
    outputs = ("enc/block/pool", "head")
    for precision in (None, "bfloat16"):
        replicated = models.replicate(model, strategies[2], precision, outputs)
        assert replicated.compiled_for_xla() is False
    results = predicted(model, outputs, rows, precision="bfloat16")
    for path in outputs:
        assert results[path].dtype == np.float32
        error = np.abs(results[path] - expected[path]).max()
        assert 0 < error < 3e-2


def test_inputs_keep_their_kinds(strategies):
    left = keras.Input((3,), name="left", optional=True)
    right = keras.Input((), name="right", dtype="string")
    words = keras.layers.StringLookup(vocabulary=["a", "b"], name="words")(right)
    mean = keras.layers.Rescaling(2.0, name="mean")(left)
    model = keras.Model([left, right], [mean, words])
    rows = [None, np.array(["b", "a", "?"], object)]
    with strategies[2].scope():
        np.testing.assert_array_equal(predicted(model, "words", rows), [2, 1, 0])


@pytest.mark.parametrize("lib", LIBRARIES.values(), ids=LIBRARIES)
def test_what_is_not_needed_is_released(lib, tmp_path, strategies, rows):
    def alive():
        gc.collect()
        return [x for x in gc.get_objects() if isinstance(x, lib.layers.Dense)]

    def names():
        return {layer.name for layer in alive() if id(layer) not in known}

    others = alive()  # of other tests
    known = set(map(id, others))

    model, parts = nested(lib)
    model.save(tmp_path / "model.keras")
    part = part_of(model, ["enc/block/pool", "enc/block"])
    forget_rest(part.model)
    del model, parts
    assert names() == {"pool", "last"}
    del part
    if lib is keras:
        with strategies[2].scope():
            predictor = mgpu.load(tmp_path / "model.keras", outputs="enc/block/pool")
        assert names() == {"pool"}
        assert predictor.predict(rows, verbose=0).shape == (8, 5)


def test_autograph_within_a_watched_model_of_tf_keras(strategies, rows):
    class Branches(tf_keras.layers.Layer):
        def call(self, inputs):
            if tf.reduce_sum(inputs) > 0:
                inputs = inputs + 1.0
            return inputs

    x = tf_keras.Input((4,))
    inner = tf_keras.Model(x, tf_keras.layers.Dense(2)(Branches(name="branches")(x)))
    y = tf_keras.Input((4,))
    model = tf_keras.Model(y, tf_keras.layers.Dense(1, name="head")(inner(y)))
    path = f"{inner.name}/branches"
    with strategies[2].scope():
        results = predicted(model, [path, "head"], rows)
    np.testing.assert_allclose(results[path], rows + 1.0)
    np.testing.assert_allclose(results["head"], model(rows), rtol=1e-5)
