"""`outputs=` of SavedModels: by the names of their signatures."""

import keras
import pytest
import tensorflow as tf
import tf_keras

import keras_mgpu_strategy as mgpu


class Graph(tf.Module):
    """One of its three outputs fails when it is computed."""

    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(tf.random.stateless_normal((4, 3), seed=(1, 2)))

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
    def __call__(self, x):
        dense = x @ self.kernel
        numbers = tf.cast(dense, tf.int32)
        fails = numbers // tf.zeros_like(numbers)
        return {"dense": dense, "sum": tf.reduce_sum(dense, 1), "fails": fails}


def two_headed(lib, kind):
    x = lib.Input((4,), name="x")
    heads = {name: lib.layers.Dense(2, name=name)(x) for name in ("b", "a")}
    return lib.Model(x, heads if kind is dict else list(heads.values()))


def predicted(path, strategy, outputs, rows):
    with strategy.scope():
        predictor = mgpu.load(path, outputs=outputs)
    return predictor.predict(rows, batch_size=3, verbose=0)


def test_only_what_was_chosen_is_computed(tmp_path, strategies, rows, assert_same):
    module, path = Graph(), str(tmp_path / "model")
    tf.saved_model.save(module, path, signatures=module.__call__)
    dense = rows @ module.kernel.numpy()
    assert_same(predicted(path, strategies[2], "dense", rows), dense)
    expected = {"sum": dense.sum(axis=1), "dense": dense}
    results = predicted(path, strategies[2], ["sum", "dense"], rows)
    assert list(results) == ["sum", "dense"]
    assert_same(results, expected)
    with pytest.raises(tf.errors.InvalidArgumentError, match="[Dd]ivision by zero"):
        predicted(path, strategies[2], "fails", rows)
    with pytest.raises(ValueError, match=r"model' has no .* names are \['dense'\]"):
        predicted(path, strategies[2], "dens", rows)
    with pytest.raises(ValueError, match=r"Expected one of \['dense', 'fails', 'sum'"):
        predicted(path, strategies[2], ["sum", "zz"], rows)


@pytest.mark.parametrize("kind", [dict, list])
@pytest.mark.parametrize("lib", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_files_of_keras(lib, kind, tmp_path, strategies, rows, assert_same):
    model, path = two_headed(lib, kind), str(tmp_path / "model")
    if lib is keras:
        model.export(path, verbose=False)
    else:
        model.save(path, save_format="tf")
    names = ["output_0", "output_1"] if lib is keras and kind is list else ["b", "a"]
    found = model(rows).values() if kind is dict else model(rows)
    expected = dict(zip(names, found, strict=True))
    assert_same(predicted(path, strategies[2], names, rows), expected)
    assert_same(predicted(path, strategies[2], names[1], rows), expected[names[1]])


def test_inputs_in_order_reach_the_signature(tmp_path, strategies, rows, assert_same):
    left, right = keras.Input((4,), name="z"), keras.Input((4,), name="a")
    difference = keras.layers.Subtract()([left, right])
    path = str(tmp_path / "model")
    keras.Model([left, right], [difference, left]).export(path, verbose=False)
    results = predicted(path, strategies[2], "output_0", [3 * rows, rows])
    assert_same(results, 2 * rows)


def test_outputs_without_names(tmp_path, strategies):
    module, path = tf.Module(), str(tmp_path / "model")
    spec = tf.TensorSpec((None, 4), tf.float32, name="x")
    module.serve = tf.function(lambda x: [x, x[:, 0]], input_signature=[spec])
    tf.saved_model.save(module, path, signatures={"other": module.serve})
    message = r"no names: it has 2, of shapes \[\(None, 4\), \(None,\)\]\. Leave out"
    with strategies[2].scope(), pytest.raises(ValueError, match=message):
        mgpu.load(path, outputs="output_0")
