"""Every model x replicas x batch size x row count, against the plain model.

`python -m pytest tests/conformance -s -k count` prints the number of cases.
"""

import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from tests import views
from tests.conformance import zoo

BATCH_SIZES = (1, 2, 3, 8, 32)
REPLICAS = (1, 2, 3, 4)
MOST_ROWS = 3 * 32 + 5


def row_counts(batch_size: int, num_replicas: int) -> list[int]:
    """0..3R+1, and around each boundary of one, two and three global batches."""
    step = -(-batch_size // num_replicas) * num_replicas
    around = {
        max(boundary + shift, 0)
        for boundary in (step, 2 * step, 3 * step)
        for shift in (-1, 0, 1)
    }
    return sorted(around | set(range(3 * num_replicas + 2)))


def first_rows(nest, num_rows):
    return tf.nest.map_structure(lambda array: array[:num_rows], nest)


@functools.cache
def expected(name):
    """Plain model, rows, and its outputs for all rows on one device."""
    model = zoo.build(name)
    rows = zoo.rows(name, MOST_ROWS)
    plain = zoo.plain(name, model)
    outputs = plain.predict(rows, batch_size=MOST_ROWS, verbose=0)
    return model, rows, outputs


def assert_rows_equal(result, outputs, num_rows, message):
    tf.nest.assert_same_structure(result, outputs)
    pairs = zip(tf.nest.flatten(result), tf.nest.flatten(outputs), strict=True)
    for array, reference in pairs:
        assert array.dtype == reference.dtype, message
        assert array.shape == (num_rows, *reference.shape[1:]), message
        np.testing.assert_allclose(
            array, reference[:num_rows], rtol=1e-5, atol=1e-6, err_msg=message
        )


def check(name, strategy, engine, batch_sizes, kinds=("plain", "frozen")):
    """The kinds of steps take turns over the batch sizes."""
    model, rows, outputs = expected(name)
    num_replicas = strategy.num_replicas_in_sync
    options = {"engine": engine, "outputs": zoo.OUTPUTS.get(name)}
    with strategy.scope():
        predictors = [mgpu.Predictor(model, compile=k, **options) for k in kinds]
    turns = itertools.cycle(predictors)
    if num_replicas % 2:  # so that each size meets each kind
        next(turns)
    for batch_size, predictor in zip(batch_sizes, turns, strict=False):
        assert predictor.num_replicas == num_replicas
        for num_rows in row_counts(batch_size, num_replicas):
            result = predictor.predict(first_rows(rows, num_rows), batch_size, 0)
            message = f"{name} {predictor} batch={batch_size} rows={num_rows}"
            assert_rows_equal(result, outputs, num_rows, message)


@pytest.mark.parametrize("num_replicas", REPLICAS)
@pytest.mark.parametrize("name", zoo.ZOO)
def test_threads_engine(name, num_replicas, strategies):
    check(name, strategies[num_replicas], "threads", BATCH_SIZES)


@pytest.mark.slow
@pytest.mark.parametrize("num_replicas", REPLICAS)
@pytest.mark.parametrize(
    "name", [*zoo.OUTPUTS, "dense", "conv_bn", "lstm", "dict_output"]
)
def test_mirrored_engine(name, num_replicas, strategies):
    check(name, strategies[num_replicas], "mirrored", (3, 8))


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.ZOO)
def test_xla(name, strategies):
    check(name, strategies[2], "threads", (3,), ("xla",))


@pytest.mark.parametrize("engine", ["threads", "mirrored"])
@pytest.mark.parametrize(
    "name", ["dense", "conv_bn", "masked_embedding", "dict_output"]
)
def test_evaluation(name, engine, strategies):
    model, rows, outputs = expected(name)
    random = np.random.default_rng(4)
    labels = tf.nest.map_structure(lambda array: random.random(array.shape), outputs)
    model.compile(loss="mse", weighted_metrics=[] if type(outputs) is dict else ["mae"])
    with strategies[3].scope():
        predictor = mgpu.Predictor(model, engine=engine)
    for num_rows in row_counts(8, 3)[1:]:
        data = first_rows((rows, labels), num_rows)
        received = np.array(predictor.evaluate(*data, 8, 0))
        np.testing.assert_allclose(
            received, model.evaluate(*data, 8, verbose=0), 1e-5, err_msg=str(num_rows)
        )


@pytest.mark.parametrize(
    ("batch", "kind"), [(3, "plain"), (8, "plain"), (3, "frozen"), (8, "xla")]
)
@pytest.mark.parametrize("name", ["dense", "conv_bn", "lstm", "attention"])
def test_the_same_bits_on_any_number_of_replicas(name, batch, kind, strategies):
    model, rows, _ = expected(name)
    results = []
    for (num_replicas, strategy), engine in itertools.product(
        strategies.items(), ("threads", "mirrored")
    ):
        with strategy.scope():
            predictor = mgpu.Predictor(model, engine=engine, compile=kind)
        results.append(predictor.predict(rows, batch * num_replicas, verbose=0))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def best_of(outputs, k):
    """NumPy's best classes along the last axis, lower ones first in ties; scores."""
    classes = np.argsort(-outputs, axis=-1, kind="stable")[..., :k]
    return {"classes": classes, "scores": np.take_along_axis(outputs, classes, -1)}


@pytest.mark.parametrize("engine", ["threads", "mirrored"])
@pytest.mark.parametrize(
    ("name", "num_replicas"),
    [("dense", 1), ("dense", 2), ("conv1d", 3), ("lstm", 2), ("masked_embedding", 3)],
)
def test_best_classes_and_cast_floats(name, num_replicas, engine, strategies):
    model, rows, outputs = expected(name)
    with strategies[num_replicas].scope():
        plain = mgpu.Predictor(model, engine=engine)
        half = mgpu.Predictor(model, engine=engine, output_dtype="float16")
    for num_rows in row_counts(8, num_replicas):
        some, message = first_rows(rows, num_rows), f"{num_rows} rows"
        best = best_of(plain.predict(some, 8, 0), 3)
        found = plain.predict_top_k(some, 3, 8, 0)
        tf.nest.map_structure(np.testing.assert_array_equal, found, best)
        assert_rows_equal(
            {"scores": found["scores"]},
            {"scores": best_of(outputs, 3)["scores"]},
            num_rows,
            message,
        )
        cast = half.predict_top_k(some, 3, 8, 0)
        np.testing.assert_array_equal(cast["classes"], best["classes"], message)
        np.testing.assert_array_equal(
            cast["scores"], best["scores"].astype("float16"), message
        )
        assert cast["scores"].dtype == half.predict(some, 8, 0).dtype == np.float16


def numpy_of(combine, singles):
    """Combines the single predictions of one output with NumPy."""
    stacked = np.stack(singles)
    if combine == "vote":
        return votes(stacked)
    if combine == "gmean":
        with np.errstate(invalid="ignore"):
            return np.exp(np.log(stacked).mean(0))
    if combine == "mean_std":
        return {"mean": stacked.mean(0), "std": stacked.std(0)}
    return stacked.swapaxes(0, 1) if combine == "stack" else stacked.mean(0)


def votes(stacked):
    """The most frequent class, the lower one in a tie."""
    is_column = stacked.shape[-1] == 1
    ids = (stacked > 0.5).astype(np.int32) if is_column else stacked.argmax(-1)
    num_classes = 2 if is_column else stacked.shape[-1]
    return np.stack([(ids == c).sum(0) for c in range(num_classes)]).argmax(0)


@functools.cache
def members(name):
    """Models of two architectures, rows, and what each predicts on one device."""
    models = [zoo.build(name), zoo.build(name, 5), zoo.other(name)]
    rows = zoo.rows(name, MOST_ROWS)
    plain = [zoo.plain(name, model) for model in models]
    return models, rows, [p.predict(rows, batch_size=8, verbose=0) for p in plain]


COMBINATIONS = ("mean", "gmean", "vote", "stack", "mean_std")


@pytest.mark.parametrize("combine", COMBINATIONS)
@pytest.mark.parametrize("name", zoo.ZOO)
def test_ensembles(name, combine, strategies):
    models, rows, singles = members(name)
    expected = tf.nest.map_structure(lambda *s: numpy_of(combine, s), *singles)
    engines = {3: "threads"} | ({2: "mirrored"} if combine == "mean" else {})
    for num_replicas, engine in engines.items():
        with strategies[num_replicas].scope():
            outputs_of = zoo.OUTPUTS.get(name)
            options = {"engine": engine, "outputs": outputs_of, "combine": combine}
            options["compile"] = "frozen" if combine in ("mean", "stack") else "plain"
            predictor = mgpu.Predictor(models, **options)
        for num_rows in row_counts(8, num_replicas):
            found = predictor.predict(first_rows(rows, num_rows), 8, 0)
            message = f"{name} {combine} {engine} rows={num_rows}"
            if combine != "vote":
                assert_rows_equal(found, expected, num_rows, message)
                continue
            wanted = first_rows(expected, num_rows)
            tf.nest.map_structure(np.testing.assert_array_equal, found, wanted)


@pytest.mark.parametrize("name", ["dense", "conv_bn", "lstm"])
def test_ensembles_give_the_same_bits_on_any_number_of_replicas(name, strategies):
    models, rows, _ = members(name)
    with strategies[1].scope():
        alone = [mgpu.Predictor(m).predict(rows, 3, verbose=0) for m in models]
    for combine, engine in itertools.product(COMBINATIONS, ("threads", "mirrored")):
        results = []
        kind = "frozen" if combine in ("mean", "gmean") else "plain"
        options = {"engine": engine, "combine": combine, "compile": kind}
        for num_replicas, strategy in strategies.items():
            with strategy.scope():
                predictor = mgpu.Predictor(models, **options)
            results.append(predictor.predict(rows, 3 * num_replicas, verbose=0))
        same = np.testing.assert_array_equal
        for result in results[1:]:
            tf.nest.map_structure(same, result, results[0])
        if combine in ("stack", "vote"):
            same(results[0], numpy_of(combine, alone))


ALL_VIEWS = ["identity", *views.TURNS]


@pytest.mark.parametrize(
    ("engine", "num_replicas"), [("threads", 1), ("threads", 2), ("mirrored", 3)]
)
def test_views_of_one_and_of_several_models(engine, num_replicas, strategies):
    model, rows, _ = expected("maps")
    other = zoo.build("maps")
    other.set_weights([weight - 0.05 for weight in other.get_weights()])
    each = [x for m in (model, other) for x in views.predictions(m, rows, ALL_VIEWS)]
    few = [each[0], each[3], each[6], each[9]]
    for models, names, combine, outputs in (
        (model, ALL_VIEWS, None, views.mean(each[:6])),
        (model, ["rot270"], "mean", each[5]),
        ([model, other], ALL_VIEWS, "mean", views.mean(each)),
        ([model, other], ["identity", "rot90"], "stack", views.stack(few)),
    ):
        how = {"engine": engine, "combine": combine, "views": names}
        how["compile"] = "frozen" if len(names) > 2 else "plain"
        with strategies[num_replicas].scope():
            predictor = mgpu.Predictor(models, **how)
        for num_rows in row_counts(8, num_replicas):
            result = predictor.predict(first_rows(rows, num_rows), 8, 0)
            assert_rows_equal(result, outputs, num_rows, f"{how} {num_rows} rows")


def test_a_replica_that_runs_on_no_rows_would_be_noticed():
    model = zoo.keras.Sequential([zoo.keras.Input((2,)), zoo.NeverEmpty()])
    with pytest.raises((tf.errors.InvalidArgumentError, AssertionError)):
        model(tf.zeros((0, 2)))


def test_count_of_cases(capsys):
    cases = sum(
        len(row_counts(batch_size, num_replicas))
        for batch_size in BATCH_SIZES
        for num_replicas in REPLICAS
    )
    total = cases * len(zoo.ZOO)
    print(f"{total} cases in the matrix of the threads engine")
    assert total > 4_000
