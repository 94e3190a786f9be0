"""What a user sees: the predict methods on real models and inputs."""

import copy
import inspect
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.compute.heads import METHODS

ROWS = np.random.default_rng(0).random((37, 5), dtype=np.float32)


def classifier(columns=3, activation="softmax"):
    return keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(columns, activation=activation)]
    )


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    return classifier()


@pytest.fixture(scope="module")
def expected(model):
    return model.predict(ROWS, batch_size=37, verbose=0)


@pytest.fixture(scope="module", params=["threads", "mirrored"])
def predictor(request, model, strategies):
    with strategies[2].scope():
        return mgpu.Predictor(model, engine=request.param)


def batches_of_11():
    return tf.data.Dataset.from_tensor_slices(ROWS).batch(11)


def test_dtypes_are_cast_as_keras_casts_them(predictor, model):
    for dtype in (np.float16, np.int8, np.int64, np.bool_):
        rows = (ROWS * 3).astype(dtype)
        result = predictor.predict(rows, batch_size=4, verbose=0)
        expected = model.predict(rows, verbose=0)
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_predict_has_the_signature_of_keras_and_then_options_by_name():
    ours = inspect.signature(mgpu.Predictor.predict).parameters
    theirs = inspect.signature(keras.Model.predict).parameters
    assert [(p.name, p.default) for p in ours.values() if p.kind != p.KEYWORD_ONLY] == [
        (p.name, p.default) for p in theirs.values()
    ]


def test_steps_draw_the_first_batches(predictor, expected):
    for x, batch_size in [(ROWS, 10), (batches_of_11(), None)]:
        rows = 30 if batch_size else 33
        result = predictor.predict(x, batch_size=batch_size, steps=3, verbose=0)
        np.testing.assert_allclose(result, expected[:rows], rtol=1e-5, atol=1e-6)


def test_an_endless_dataset_needs_steps(predictor):
    endless = batches_of_11().repeat()
    with pytest.raises(ValueError, match="steps"):
        predictor.predict(endless, verbose=0)
    assert predictor.predict(endless, steps=5, verbose=0).shape == (48, 3)


def test_no_rows_give_empty_arrays(predictor):
    assert predictor.predict(ROWS[:0], verbose=0).shape == (0, 3)
    assert predictor.predict(iter(()), verbose=0).shape == (0, 3)
    empty = tf.data.Dataset.from_tensor_slices(ROWS[:0]).batch(4)
    assert predictor.predict_classes(empty, verbose=0).shape == (0,)


def test_proba_warns_once_with_the_worst_value_and_its_row(strategies):
    plain = classifier(activation=None)
    plain.set_weights([np.eye(5, 3), np.zeros(3)])
    with strategies[2].scope():
        predictor = mgpu.Predictor(plain)
    rows = ROWS.copy()
    rows[20, 1] = -7.5
    with pytest.warns(UserWarning, match=r"-7\.5 in row 20 .*from_logits=True") as seen:
        result = predictor.predict_proba(rows, batch_size=4, verbose=0)
    assert len(seen) == 1
    np.testing.assert_allclose(result, rows[:, :3], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"-7\.5 in row 20"):
        predictor.predict_proba(rows, batch_size=4, verbose=0, strict=True)
    result = predictor.predict_proba(rows, verbose=0, from_logits=True)
    np.testing.assert_allclose(result, tf.nn.softmax(rows[:, :3]), rtol=1e-5, atol=1e-6)


def test_classes_are_those_of_keras_2(predictor, expected):
    result = predictor.predict_classes(ROWS, batch_size=5, verbose=0)
    assert result.dtype == np.int64
    np.testing.assert_array_equal(result, expected.argmax(axis=-1))


def test_on_batch_takes_any_size(predictor, expected):
    for size in (1, 2, 37):
        result = predictor.predict_on_batch(ROWS[:size])
        np.testing.assert_allclose(result, expected[:size], rtol=1e-5, atol=1e-6)


def test_fit_and_evaluate_work_on_a_rebuilt_model(strategies):
    plain = classifier()
    plain.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    labels = np.arange(37) % 3
    plain.fit(ROWS, labels, verbose=0)
    with strategies[2].scope():
        predictor = mgpu.Predictor(plain)
    assert predictor.model is not plain
    data = tf.data.Dataset.from_tensor_slices((ROWS[:36], labels[:36])).batch(12)
    ours = predictor.model.evaluate(data, verbose=0)
    np.testing.assert_allclose(ours, plain.evaluate(data, verbose=0), rtol=1e-4)
    before = predictor.predict(ROWS, verbose=0)
    training = data.repeat()
    predictor.model.fit(training, epochs=2, steps_per_epoch=3, shuffle=False, verbose=0)
    after = predictor.predict(ROWS, verbose=0)
    assert np.abs(after - before).max() > 1e-4
    np.testing.assert_allclose(
        after, predictor.model(ROWS, training=False), rtol=1e-4, atol=1e-6
    )


def test_nested_structures_come_back_as_from_keras(strategies):
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    dense = keras.layers.Dense(2)
    outputs = {"sum": dense(a), "pair": [b, keras.layers.Dense(1)(b)]}
    plain = keras.Model({"a": a, "b": b}, outputs)
    x = {"b": ROWS[:, :3], "a": ROWS[:, 3:], "unused": ROWS}
    x_used = {"b": x["b"], "a": x["a"]}
    reference = plain.predict(x_used, verbose=0)
    with strategies[3].scope():
        result = mgpu.Predictor(plain).predict(x_used, batch_size=5, verbose=0)
    tf.nest.assert_same_structure(result, reference)
    tf.nest.map_structure(
        lambda o, r: np.testing.assert_allclose(o, r, rtol=1e-5, atol=1e-6),
        result,
        reference,
    )


def ragged_rows():
    for length in (4, 7, 2, 7):
        yield (np.ones((3, length, 2), np.float32) * length,)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras' own run
@pytest.mark.parametrize("engine", ["threads", "mirrored"])
def test_lengths_that_vary_come_back_ragged_as_from_keras(engine, strategies):
    plain = keras.Sequential(
        [keras.Input((None, 2)), keras.layers.LSTM(3, return_sequences=True)]
    )
    with strategies[2].scope():
        predictor = mgpu.Predictor(plain, engine=engine)
    reference = plain.predict(ragged_rows(), verbose=0)
    result = predictor.predict(ragged_rows(), verbose=0)
    assert isinstance(result, tf.RaggedTensor)
    assert result.shape.as_list() == reference.shape.as_list()
    np.testing.assert_allclose(
        result.flat_values, reference.flat_values, rtol=1e-5, atol=1e-6
    )
    assert (
        result.row_lengths().numpy().tolist() == [4] * 3 + [7] * 3 + [2] * 3 + [7] * 3
    )


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)


def test_a_model_that_is_not_built_yet_is_built_on_every_device(strategies):
    with strategies[3].scope():
        predictor = mgpu.Predictor(Subclassed())
    result = predictor.predict(ROWS, batch_size=6, verbose=0)
    np.testing.assert_allclose(result, predictor.model(ROWS), rtol=1e-5, atol=1e-6)
    for variable in predictor.model.variables:
        copies = strategies[3].experimental_local_results(variable.value)
        assert len({copy.device for copy in copies}) == 3


def test_a_model_built_for_one_batch_size_gets_just_that(strategies):
    inputs = keras.Input(batch_shape=(4, 5))
    plain = keras.Model(inputs, keras.ops.reshape(inputs, (4, 5)) * 2)
    with strategies[2].scope():
        predictor = mgpu.Predictor(plain)
    np.testing.assert_allclose(predictor.predict(ROWS, verbose=0), ROWS * 2)
    with pytest.raises(ValueError, match=r"exactly 4. Pass batch_size=8 or None"):
        predictor.predict(ROWS, batch_size=16, verbose=0)


def test_outside_a_scope_a_model_stays_on_its_own_devices(strategies):
    with strategies[3].scope():
        built = classifier()
    predictor = mgpu.Predictor(built)
    assert predictor.model is built
    assert predictor.num_replicas == 3
    assert [device[-5:] for device in predictor.devices] == ["CPU:0", "CPU:1", "CPU:2"]


@pytest.mark.parametrize(
    ("x", "arguments", "error", "message"),
    [
        (ROWS[:, :4], {}, ValueError, r"\(None, 4\).*\(None, 5\)"),
        (ROWS, {"batch_size": 0}, ValueError, "batch_size"),
        (ROWS, {"verbose": 3}, ValueError, "verbose=3"),
        (ROWS.astype(object), {}, ValueError, "object"),
        ([ROWS, ROWS[:3]], {}, ValueError, "37.*3"),
        (object(), {}, TypeError, "object"),
    ],
)
def test_errors_come_before_any_work(x, arguments, error, message, predictor):
    with pytest.raises(error, match=message):
        predictor.predict(x, **{"verbose": 0, **arguments})


def test_a_generator_is_not_touched_if_verbose_is_wrong(predictor):
    read = []

    def batches():
        read.append(ROWS)
        yield ROWS

    for method in METHODS:
        with pytest.raises(ValueError, match="verbose='loud'. Expected 0"):
            getattr(predictor, method)(batches(), verbose="loud")
    assert not read


def test_it_cannot_be_sent_to_another_process(predictor):
    message = "A Predictor cannot be pickled or copied.*Send the path of a saved model"
    for send in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match=message):
            send(predictor)
