"""`evaluate`, against `model.evaluate` of Keras and tf_keras on one device."""

import concurrent.futures
import decimal
import functools
import itertools

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import tf_keras

import keras_mgpu_strategy as mgpu

LIBRARIES = {"keras": keras, "tf_keras": tf_keras}
NUM_ROWS = 1000
RANDOM = np.random.default_rng(3)
ROWS = RANDOM.random((NUM_ROWS, 6), np.float32)
CLASSES = RANDOM.integers(0, 3, NUM_ROWS)
FLAGS = (ROWS.sum(axis=1, keepdims=True) > 3).astype(np.float32)
WEIGHTS = RANDOM.random(NUM_ROWS).astype(np.float32)


class Recorder(keras.callbacks.Callback):
    """Records each call with its arguments."""

    def __init__(self):
        super().__init__()
        self.events = []

    def on_test_begin(self, logs=None):
        self.events.append(("begin", None, logs or {}))

    def on_test_batch_begin(self, batch, logs=None):
        self.events.append(("batch begin", batch, logs or {}))

    def on_test_batch_end(self, batch, logs=None):
        self.events.append(("batch end", batch, dict(logs)))

    def on_test_end(self, logs=None):
        self.events.append(("end", None, dict(logs)))


class StopAfter(keras.callbacks.Callback):
    """Ends the run after a batch."""

    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def on_test_batch_end(self, batch, logs=None):
        if batch == self.batch:
            self.model.stop_evaluating = True


def largest(library):
    """A user's metric with an argument, which is not a mean."""

    class Largest(library.metrics.Metric):
        def __init__(self, scale=1.0, name="largest", **more):
            super().__init__(name=name, **more)
            self.scale = scale
            self.most = self.add_weight(name="most", initializer="zeros")

        def update_state(self, y_true, y_pred, sample_weight=None):
            most = self.scale * tf.reduce_max(tf.cast(y_pred, tf.float32))
            self.most.assign(tf.maximum(tf.convert_to_tensor(self.most), most))

        def result(self):
            return tf.convert_to_tensor(self.most)

        def get_config(self):
            return {**super().get_config(), "scale": self.scale}

    return Largest(2.0)


def distance(y_true, y_pred):
    return tf.reduce_mean(tf.abs(tf.cast(y_true, y_pred.dtype) - y_pred), axis=-1)


def squared(y_true, y_pred):
    return tf.reduce_mean(tf.square(tf.cast(y_true, y_pred.dtype) - y_pred), axis=-1)


def hidden(library, **options):
    inputs = library.Input((6,), name="table")
    return inputs, library.layers.Dense(8, activation="relu", **options)(inputs)


def classes(library):
    inputs, inner = hidden(library)
    model = library.Model(inputs, library.layers.Dense(3, "softmax")(inner))
    model.compile(
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        weighted_metrics=["accuracy"],
    )
    return model, CLASSES


def one_hot(library):
    inputs, inner = hidden(library)
    model = library.Model(inputs, library.layers.Dense(3)(inner))
    loss = library.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, metrics=["accuracy", distance, lambda y, p: p[:, 0]])
    return model, np.eye(3)[CLASSES]  # float64


def flags(library):
    inputs, inner = hidden(library, kernel_regularizer="l2", bias_regularizer="l1")
    model = library.Model(inputs, library.layers.Dense(1, "sigmoid")(inner))
    metrics = [library.metrics.AUC(name="auc"), largest(library), "binary_accuracy"]
    model.compile(loss=squared, metrics=metrics, weighted_metrics=["mae"])
    return model, FLAGS.astype(np.int64)


def loss_alone(library):
    inputs, inner = hidden(library)
    model = library.Model(inputs, library.layers.Dense(1)(inner))
    model.compile(loss=library.losses.MeanSquaredError(reduction="sum"))
    return model, FLAGS


def two_in_a_dict(library):
    inputs, inner = hidden(library)
    flag = library.layers.Dense(1, "sigmoid", name="flag")(inner)
    kind = library.layers.Dense(3, "softmax", name="kind")(inner)
    model = library.Model(inputs, {"kind": kind, "flag": flag})
    model.compile(
        loss={"flag": "mse", "kind": "sparse_categorical_crossentropy"},
        loss_weights={"flag": 0.3, "kind": 2.0},
        metrics={"flag": ["mae", "mse"], "kind": ["accuracy"]},
        weighted_metrics={"kind": ["accuracy"]},
    )
    return model, {"flag": FLAGS, "kind": CLASSES}


def two_in_a_list(library):
    inputs, inner = hidden(library)
    flag = library.layers.Dense(1, "sigmoid", name="flag")(inner)
    kind = library.layers.Dense(3, "softmax", name="kind")(inner)
    model = library.Model(inputs, [flag, kind])
    losses = ["binary_crossentropy", "sparse_categorical_crossentropy"]
    model.compile(loss=losses, metrics=[["mae"], [largest(library), "accuracy"]])
    return model, [FLAGS, CLASSES]


MODELS = (classes, one_hot, flags, loss_alone, two_in_a_dict, two_in_a_list)


@functools.cache
def made(make, library):
    LIBRARIES[library].utils.set_random_seed(5)
    return make(LIBRARIES[library])


def first(nest, num_rows):
    return tf.nest.map_structure(lambda array: array[:num_rows], nest)


def assert_same(received, expected):
    assert type(received) is type(expected)
    if isinstance(expected, dict):
        assert received.keys() == expected.keys()
        received = [received[name] for name in expected]
        expected = list(expected.values())
    np.testing.assert_allclose(received, expected, rtol=1e-6, atol=1e-7)


def on_replicas(model, strategy, engine="threads"):
    with strategy.scope():
        return mgpu.Predictor(model, engine=engine)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("make", MODELS)
def test_results_are_those_of_one_device(make, library, strategies):
    model, labels = made(make, library)
    cases = [(1, None, 2), (7, 2, 1), (64, 3, 3), (NUM_ROWS, None, 4)]
    for num_rows, batch_size, num_replicas in cases:
        predictor = on_replicas(model, strategies[num_replicas])
        data = first((ROWS, labels), num_rows)
        # tf_keras does not define one array of weights with a dict of labels.
        is_weighted = num_rows > 7 and (library == "keras" or type(labels) is not dict)
        weights = WEIGHTS[:num_rows] if is_weighted else None
        options = {"sample_weight": weights, "verbose": 0, "return_dict": True}
        expected = model.evaluate(*data, batch_size, **options)
        assert_same(predictor.evaluate(*data, batch_size, **options), expected)
    received = predictor.evaluate(ROWS, labels, verbose=0)
    assert_same(received, model.evaluate(ROWS, labels, verbose=0))


def batches_of(num_rows, sizes, *arrays):
    """Tuples of rows of arrays, in batches of these sizes, which are repeated."""
    start, sizes = 0, itertools.cycle(sizes)
    while start < num_rows:
        stop = min(start + next(sizes), num_rows)
        yield tuple(first_between(arrays, start, stop))
        start = stop


def first_between(nest, start, stop):
    return tf.nest.map_structure(lambda array: array[start:stop], nest)


class InTens(keras.utils.PyDataset):
    def __len__(self):
        return 11

    def __getitem__(self, index):
        return tuple(first_between((ROWS, CLASSES), 10 * index, 10 * index + 10))


@pytest.mark.parametrize("engine", ["threads", "mirrored"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_labels_come_in_elements(library, engine, strategies):
    model, labels = made(two_in_a_list, library)
    predictor = on_replicas(model, strategies[3], engine)
    weights = [WEIGHTS, 2 * WEIGHTS]

    def stream():
        return batches_of(205, (32, 7, 64), ROWS, tuple(labels), tuple(weights))

    count = {"steps": len(list(stream())), "verbose": 0}
    expected = model.evaluate(stream(), **count)
    assert_same(predictor.evaluate(stream(), verbose=0), expected)
    assert_same(predictor.evaluate(stream(), **count), expected)
    data = tf.data.Dataset.from_tensor_slices((ROWS, tuple(labels))).batch(48)
    for steps in (None, 3):
        assert_same(
            predictor.evaluate(data, steps=steps, verbose=0),
            model.evaluate(data, steps=steps, verbose=0),
        )
    if library == "keras":
        model, _ = made(classes, library)
        predictor = on_replicas(model, strategies[2], engine)
        expected = model.evaluate(InTens(), verbose=0)
        assert_same(predictor.evaluate(InTens(), verbose=0), expected)


@pytest.mark.parametrize("engine", ["threads", "mirrored"])
def test_calls_of_callbacks_are_those_of_keras(engine, strategies):
    model, labels = made(classes, "keras")
    predictor = on_replicas(model, strategies[2], engine)
    recorded = []
    for each in (model, predictor.model):
        recorder = Recorder()
        evaluate = model.evaluate if each is model else predictor.evaluate
        data = first((ROWS, labels), 70)
        evaluate(*data, 20, callbacks=[recorder], verbose=0)
        assert recorder.model is each
        recorded.append(recorder)
    mine, theirs = recorded[1].events, recorded[0].events
    assert [event[:2] for event in mine] == [event[:2] for event in theirs]
    for event, expected in zip(mine, theirs, strict=True):
        assert_same(event[2], expected[2])
    assert recorded[1].params == recorded[0].params


def test_a_callback_ends_an_evaluation(strategies):
    model, labels = made(classes, "keras")
    predictor = on_replicas(model, strategies[2])
    expected = model.evaluate(ROWS, labels, 10, 0, callbacks=[StopAfter(2)])
    received = predictor.evaluate(ROWS, labels, 10, 0, callbacks=StopAfter(2))
    assert_same(received, expected)
    assert_same(received, model.evaluate(*first((ROWS, labels), 30), 10, verbose=0))


def test_steps_of_arrays_are_those_of_keras(strategies):
    model, labels = made(flags, "keras")
    predictor = on_replicas(model, strategies[3])
    for batch_size, steps in ((7, 3), (None, 9)):
        options = {"batch_size": batch_size, "steps": steps, "verbose": 0}
        expected = model.evaluate(ROWS, labels, **options)
        assert_same(predictor.evaluate(ROWS, labels, **options), expected)


def test_a_bar_shows_the_results(strategies, capsys):
    model, labels = made(classes, "keras")
    predictor = on_replicas(model, strategies[2])
    predictor.evaluate(ROWS, labels, verbose=1)
    loss, *_ = predictor.evaluate(ROWS, labels, verbose=2)
    *_, last, line = capsys.readouterr().out.replace("\r", "\n").strip().splitlines()
    assert f"loss: {loss:.4f}" in last
    assert "32/32" in line and f"loss: {loss:.4f}" in line


def test_columns_are_labels(strategies):
    model, labels = made(two_in_a_dict, "keras")
    predictor = on_replicas(model, strategies[2])
    expected = model.evaluate(ROWS, labels, verbose=0)
    frame = pd.DataFrame(ROWS, columns=list("abcdef"))
    frame.insert(2, "is", FLAGS)
    frame["of"] = CLASSES
    names = {"flag": "is", "kind": "of"}
    assert_same(predictor.evaluate(frame, names, verbose=0), expected)
    entries = {"table": ROWS, "is": FLAGS, "of": CLASSES}
    assert_same(predictor.evaluate(entries, names, verbose=0), expected)

    model, _ = flags(keras)
    predictor = on_replicas(model, strategies[2])
    frame = frame.drop(columns="of").assign(weight=WEIGHTS)
    features = frame.drop(columns=["is", "weight"])
    expected = model.evaluate(
        features, frame["is"], sample_weight=frame["weight"], verbose=0
    )
    received = predictor.evaluate(frame, "is", sample_weight="weight", verbose=0)
    assert_same(received, expected)


def test_labels_and_weights_come_from_files(strategies, tmp_path):
    model, labels = made(classes, "keras")
    predictor = on_replicas(model, strategies[3])
    expected = model.evaluate(ROWS, labels, sample_weight=WEIGHTS, verbose=0)
    frame = pd.DataFrame({"y": CLASSES, "w": WEIGHTS})
    files = {name: tmp_path / name for name in ("y.npy", "w.csv", "w.parquet", "x.csv")}
    np.save(files["y.npy"], CLASSES)
    frame[["w"]].to_csv(files["w.csv"], index=False)
    frame[["w"]].to_parquet(files["w.parquet"], row_group_size=300)
    pd.DataFrame(ROWS, columns=list("abcdef")).to_csv(files["x.csv"], index=False)
    for x, y, weights in (
        (ROWS, files["y.npy"], WEIGHTS),
        (files["x.csv"], mgpu.files.Npy(files["y.npy"]), files["w.csv"]),
        (files["x.csv"], CLASSES.tolist(), files["w.parquet"]),
    ):
        received = predictor.evaluate(x, y, sample_weight=weights, verbose=0)
        assert_same(received, expected)
    for x, y, message in (
        (files["x.csv"], CLASSES[:999], "y ends, or its shape changes, at row 999"),
        (files["x.csv"], np.zeros(1001), "x ended after 1000 rows, but there are more"),
        (ROWS[:999], files["w.csv"], "x ended after 999 rows, but there are more in y"),
        ({"x": ROWS}, "y.csv", r"pass pathlib.Path\('y.csv'\)"),
        (ROWS, str(files["y.npy"]), r"pass pathlib.Path\('.*y.npy'\)"),
        (files["x.csv"], str(tmp_path), r"pass pathlib.Path\("),
        (files["y.npy"], "y.npy", r"pass pathlib.Path\('y.npy'\)"),
    ):
        with pytest.raises(ValueError, match=message):
            predictor.evaluate(x, y, verbose=0)
    model, labels = made(two_in_a_list, "keras")
    predictor = on_replicas(model, strategies[2])
    expected = model.evaluate(ROWS, labels, sample_weight=[WEIGHTS] * 2, verbose=0)
    received = predictor.evaluate(ROWS, labels, sample_weight=files["w.csv"], verbose=0)
    assert_same(received, expected)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "arrow"])
def test_columns_of_tables_are_labels(suffix, strategies, tmp_path):
    model, _ = flags(keras)
    predictor = on_replicas(model, strategies[2])
    frame = pd.DataFrame(ROWS, columns=list("abcdef"))
    frame["is"], frame["weight"] = FLAGS.astype(int), WEIGHTS
    path = tmp_path / f"table.{suffix}"
    if suffix == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, row_group_size=300)
    table = pq.read_table(path) if suffix == "arrow" else path
    expected = model.evaluate(
        ROWS, frame["is"], sample_weight=frame["weight"], verbose=0
    )
    received = predictor.evaluate(table, "is", sample_weight="weight", verbose=0)
    assert_same(received, expected)
    with pytest.raises(ValueError, match="expected only names"):
        predictor.evaluate(table, "is", sample_weight=WEIGHTS, verbose=0)


def test_lists_in_a_column_are_labels(strategies):
    model, labels = made(one_hot, "keras")
    predictor = on_replicas(model, strategies[2])
    expected = model.evaluate(ROWS[:70], labels[:70], verbose=0)
    table = pa.table({"table": list(ROWS[:70]), "kind": labels[:70].tolist()})
    assert_same(predictor.evaluate(table, "kind", verbose=0), expected)
    for wrong, message in [
        ([*labels[:40].tolist(), [1.0]], "row 40 holds a list of 1 values, expected 3"),
        ([*labels[:50].tolist(), None], "row 50 holds a null"),
        ([*labels[:60].tolist(), [0.0, None, 1.0]], "row 60 holds a null"),
    ]:
        table = pa.table({"table": list(ROWS[: len(wrong)]), "kind": wrong})
        with pytest.raises(ValueError, match=message):
            predictor.evaluate(table, "kind", verbose=0)


def test_decimals_in_a_column_are_labels(strategies):
    model, _ = made(loss_alone, "keras")
    halves = np.arange(len(ROWS)) / 2
    column = pa.array([decimal.Decimal(str(half)) for half in halves])
    table = pa.table({"table": list(ROWS), "price": column})
    expected = model.evaluate(ROWS, halves, verbose=0)
    received = on_replicas(model, strategies[2]).evaluate(table, "price", verbose=0)
    assert_same(received, expected)


class OwnStep(keras.Model):
    def test_step(self, data):
        return super().test_step(data)


class AddsLoss(keras.layers.Layer):
    def call(self, inputs):
        self.add_loss(tf.reduce_mean(inputs))
        return inputs


class Measures(keras.layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.mean = keras.metrics.Mean()

    def call(self, inputs):
        self.mean.update_state(inputs)
        return inputs


def compiled(model):
    model.compile(loss="mse", metrics=["mae"])
    return model


def with_layer(layer):
    inputs, inner = hidden(keras)
    return compiled(keras.Model(inputs, layer(inner)))


def own_step():
    inputs, inner = hidden(keras)
    return compiled(OwnStep(inputs, inner))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (own_step, "has its own `test_step`"),
        (lambda: with_layer(AddsLoss()), "adds losses that depend on its inputs"),
        (
            lambda: with_layer(keras.layers.Dense(8, activity_regularizer="l2")),
            "adds losses that depend on its inputs",
        ),
        (lambda: with_layer(Measures()), "has metrics of its own"),
        (lambda: keras.Model(*hidden(keras)), "is not compiled"),
    ],
)
def test_what_is_more_than_outputs_is_refused(make, message, strategies):
    with strategies[2].scope():
        predictor = mgpu.Predictor(make())
    with pytest.raises(ValueError, match=message) as caught:
        predictor.evaluate(ROWS, ROWS, verbose=0)
    assert "predictor.model." in str(caught.value)
    assert predictor.report is None


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (ROWS, {"y": FLAGS[:7]}, "1000 rows in x, but 7 in y."),
        (
            ROWS,
            {"y": FLAGS, "sample_weight": WEIGHTS[:9]},
            "1000 rows in x, but 9 in sample_weight.",
        ),
        (ROWS, {"sample_weight": WEIGHTS}, "sample_weight without y"),
        (ROWS, {"y": "label"}, "'label' is a name, but x is ndarray"),
        ({"table": ROWS}, {"y": "label"}, "there is no 'label'; received table."),
        (ROWS, {}, "losses and metrics cannot be computed from its outputs"),
        (ROWS, {"y": FLAGS.astype(str)}, r"and the labels \(string of shape.*[Cc]ast"),
        (ROWS[:0], {"y": FLAGS[:0]}, "x has no rows"),
        (iter([ROWS]), {"y": FLAGS}, "expected elements"),
        (iter([(ROWS, FLAGS), (ROWS,)]), {}, "Batch 1 .* received no labels beside x"),
        (iter([(ROWS, FLAGS[:5])]), {}, "y has 5 rows, but x has 1000"),
    ],
)
def test_labels_that_do_not_fit_are_refused(x, options, message, strategies):
    model, _ = made(flags, "keras")
    with strategies[2].scope():
        predictor = mgpu.Predictor(model)
    with pytest.raises(ValueError, match=message):
        predictor.evaluate(x, verbose=0, **options)


def eager(library):
    def loss(y_true, y_pred):
        return float(np.abs(y_true.numpy() - y_pred.numpy()).mean()) + 0.0 * y_pred

    inputs, inner = hidden(library)
    model = library.Model(inputs, library.layers.Dense(1)(inner))
    model.compile(loss=loss, metrics=["mae"], run_eagerly=True)
    return model, FLAGS


def low(library):
    policy = library.mixed_precision.Policy("mixed_float16")
    inputs, inner = hidden(library, dtype=policy)
    outputs = library.layers.Dense(3, "softmax", dtype=policy)(inner)
    model = library.Model(inputs, outputs)
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model, CLASSES[:, np.newaxis].astype(np.uint8)


def tags(library):
    """A mask on outputs, which losses and metrics apply."""
    inputs = library.Input((5,), dtype="int32")
    embedded = library.layers.Embedding(4, 6, mask_zero=True)(inputs)
    inner = library.layers.LSTM(5, return_sequences=True)(embedded)
    model = library.Model(inputs, library.layers.Dense(3, "softmax")(inner))
    model.compile(
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        weighted_metrics=["accuracy"],
    )
    return model, RANDOM.integers(0, 3, (NUM_ROWS, 5))


def by_penalty_alone(library):
    inputs, inner = hidden(library, kernel_regularizer="l2")
    model = library.Model(inputs, inner)
    model.compile(metrics=[])
    return model, None


class Own(keras.Model):
    """Built when first called."""

    def __init__(self, **options):
        super().__init__(**options)
        self.inner = keras.layers.Dense(1)

    def call(self, x):
        return {"score": self.inner(x)}


def unbuilt(library):
    del library
    model = Own()
    model.compile(loss={"score": "mse"}, metrics={"score": ["mae"]})
    return model, {"score": FLAGS}


@pytest.mark.parametrize(
    ("library", "engine"),
    [("keras", "threads"), ("keras", "mirrored"), ("tf_keras", "threads")],
)
def test_masked_results_do_not_count(library, engine, strategies):
    model, labels = made(tags, library)
    words = RANDOM.integers(0, 4, (NUM_ROWS, 5)).astype(np.int32)
    expected = model.evaluate(words[:70], labels[:70], verbose=0)
    predictor = on_replicas(model, strategies[2], engine)
    received = predictor.evaluate(words[:70], labels[:70], verbose=0)
    assert_same(received, expected)
    if engine == "mirrored":
        return
    with strategies[2].scope():
        predictor = mgpu.Predictor(model, precision="bfloat16")
    words, labels = words[:30], labels[:30]
    low = predictor.predict(words, verbose=0)
    low /= low.sum(axis=-1, keepdims=True)  # as the loss does
    found = np.take_along_axis(low, labels[..., np.newaxis], axis=-1)[words != 0]
    loss, *_ = predictor.evaluate(words, labels, verbose=0)
    np.testing.assert_allclose(loss, -np.log(found).mean(), rtol=1e-5)


@pytest.mark.parametrize("make", [eager, low, by_penalty_alone, unbuilt])
def test_ways_to_compile_are_those_of_one_device(make, strategies):
    model, labels = make(keras)
    data = (ROWS[:70],) if labels is None else first((ROWS, labels), 70)
    with strategies[2].scope():
        predictor = mgpu.Predictor(model)
    if make is unbuilt:
        predictor.predict(data[0], verbose=0)
        model, _ = make(keras)
        model(ROWS[:1])
        model.set_weights(predictor.model.get_weights())
    assert_same(predictor.evaluate(*data, verbose=0), model.evaluate(*data, verbose=0))


def test_what_crosses_the_bus_is_all_of_the_outputs(strategies):
    model, labels = made(two_in_a_dict, "keras")
    with strategies[2].scope():
        narrow = mgpu.Predictor(model, output_dtype="float16")
        part = mgpu.Predictor(model, outputs="kind")
    expected = model.evaluate(ROWS, labels, verbose=0)
    assert_same(narrow.evaluate(ROWS, labels, verbose=0), expected)
    with pytest.raises(ValueError, match="Make a Predictor without outputs= to"):
        part.evaluate(ROWS, labels, verbose=0)


def test_weights_and_compile_settings_count_as_they_are_now(strategies):
    model, labels = flags(keras)
    predictor = on_replicas(model, strategies[2])
    predictor.evaluate(ROWS, labels, verbose=0)
    for each in (model, predictor.model):
        each.set_weights([2 * array for array in model.get_weights()])
    predictor.model.set_weights(model.get_weights())
    expected = model.evaluate(ROWS, labels, verbose=0)
    assert_same(predictor.evaluate(ROWS, labels, verbose=0), expected)
    for each in (model, predictor.model):
        each.compile(loss="mae", metrics=["mse"])
    expected = model.evaluate(ROWS, labels, verbose=0, return_dict=True)
    received = predictor.evaluate(ROWS, labels, verbose=0, return_dict=True)
    assert_same(received, expected)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        found = [
            pool.submit(predictor.evaluate, ROWS, labels, verbose=0) for _ in range(3)
        ]
    for each in found:
        assert_same(each.result(), list(expected.values()))


@pytest.mark.parametrize("library", LIBRARIES)
def test_rows_may_change_their_shape_between_batches(library, strategies):
    lib = LIBRARIES[library]
    inputs = lib.Input((None, 3))
    policy = lib.mixed_precision.Policy("mixed_bfloat16")
    outputs = lib.layers.Dense(2, dtype=policy)(inputs)
    model = lib.Model(inputs, outputs)
    model.compile(loss="mse", metrics=["mae"], weighted_metrics=["mae"])
    lengths, sizes = (4, 7, 7, 2, 4), (5, 9, 9, 3, 40)

    def stream():
        random = np.random.default_rng(6)
        for length, size in zip(lengths, sizes, strict=True):
            shapes = ((size, length, 3), (size, length, 2), (size, length))
            yield tuple(random.random(shape, np.float32) for shape in shapes)

    expected = model.evaluate(stream(), steps=5, verbose=0)
    predictor = on_replicas(model, strategies[3])
    assert_same(predictor.evaluate(stream(), verbose=0), expected)


def test_errors_of_a_stream_and_of_a_metric_end_the_run(strategies):
    def fails(y_true, y_pred):
        def check(found):
            if found.max() > 40:
                raise ZeroDivisionError("on purpose")
            return found

        return tf.ensure_shape(
            tf.numpy_function(check, [y_true], tf.float32), y_true.shape
        )[:, 0]

    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile(loss="mse", metrics=[fails])
    predictor = on_replicas(model, strategies[2])
    places = np.arange(70, dtype=np.float32)[:, np.newaxis]

    def stream():
        yield ROWS[:10], places[:10]
        raise InterruptedError("on purpose, too")

    with pytest.raises(InterruptedError, match="on purpose, too"):
        predictor.evaluate(stream(), verbose=0)
    with pytest.raises(tf.errors.UnknownError, match="ZeroDivisionError: on purpose"):
        predictor.evaluate(ROWS[:70], places, 10, verbose=0)
    loss, found = predictor.evaluate(ROWS[:40], places[:40], 10, verbose=0)
    np.testing.assert_allclose(found, places[:40].mean())
