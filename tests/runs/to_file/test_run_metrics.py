"""Metrics of a run into a file are those of Keras, also after stops and in shards."""

import re

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf
import tf_keras

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.merge import merge
from keras_mgpu_strategy.outputs import journal as journals
from keras_mgpu_strategy.outputs.target import Target
from keras_mgpu_strategy.runs import judging, run_metrics
from tests import file_runs
from tests.resuming import NUM_ROWS, X, fail, write
from tests.runs.to_file.test_predict_to_killed import snapshots

CLASSES = np.random.default_rng(1).integers(0, 3, NUM_ROWS)
ONE_HOT = np.eye(3, dtype=np.float32)[CLASSES]


@keras.saving.register_keras_serializable("tests")
class Rows(keras.metrics.Metric):
    """A user's metric."""

    def __init__(self, name="rows", aggregation="sum", **options):
        super().__init__(name=name, **options)
        self.aggregation = aggregation
        self.num = self.add_variable((), "zeros", "int32", aggregation, name="num")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.num.assign_add(keras.ops.shape(y_true)[0])

    def result(self):
        return self.num

    def get_config(self):
        return {**super().get_config(), "aggregation": self.aggregation}


def distance(y_true, y_pred):
    return keras.ops.max(keras.ops.abs(y_true - y_pred), -1)


def metrics_of_one_hot():
    """Names, objects and functions, and the same metrics in plain Keras."""
    of = keras.metrics
    given = [
        *("accuracy", "mse", of.AUC(), of.AUC(multi_label=True), of.R2Score()),
        *(of.Precision(), of.Recall(), of.F1Score(average="macro"), of.F1Score()),
        *(of.RootMeanSquaredError(), of.CosineSimilarity(), of.OneHotMeanIoU(3)),
        *(of.CategoricalCrossentropy(), of.TopKCategoricalAccuracy(2), Rows()),
        *(of.mean_absolute_error, distance, tf_keras.metrics.AUC()),
    ]
    same = [of.CategoricalAccuracy(), of.MeanSquaredError(), *given[2:15]]
    means = [of.MeanMetricWrapper(fn) for fn in (of.mean_absolute_error, distance)]
    return given, [*same, *means, tf_keras.metrics.AUC()]


def of_keras(metrics, y_true, y_pred):
    for metric in metrics:
        metric.reset_state()
        metric.update_state(y_true, y_pred)
    return [np.asarray(metric.result()).tolist() for metric in metrics]


@pytest.fixture
def small(monkeypatch):
    """Small blocks, so that a run has several."""
    monkeypatch.setattr(run_metrics, "_BLOCK_ROWS", 16)


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.npy"


def test_metrics_are_those_of_keras(strategies, predictors, output, small):
    _, same = metrics_of_one_hot()
    with strategies[2].scope():  # in which a plain metric would be mirrored
        given, _ = metrics_of_one_hot()
        options = {"labels": ONE_HOT, "metrics": given}
        report = write(predictors[2], output, X, **options)
    expected = of_keras(same, ONE_HOT, np.load(output))
    assert [*report.metrics][:6] == ["accuracy", "mse", "auc", "auc_1", "r2_score"] + [
        "precision"
    ]
    for found, value in zip(report.metrics.values(), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-5)
    assert report.metrics["rows"] == NUM_ROWS
    assert f"\naccuracy  {report.metrics['accuracy']:#.4g}" in str(report)
    assert predictors[2].report == report
    # The metrics are in the record of the output; the user's objects are unchanged.
    again = write(predictors[1], output, X, resume=True, batch_size=4, **options)
    assert (again.rows, again.metrics) == (0, report.metrics)
    assert float(given[2].result()) == 0.0


def batches_with(labels):
    for start in range(0, NUM_ROWS, file_runs.USER_BATCH):
        some = slice(start, start + file_runs.USER_BATCH)
        yield X[some], labels[some]


def data_set_with(labels):
    return tf.data.Dataset.from_tensor_slices((X, labels)).batch(file_runs.USER_BATCH)


FRAME = pd.DataFrame({"a": X[:, 0], "label": CLASSES, "b": X[:, 1]})
IN_X = {
    "elements": lambda file: (batches_with(CLASSES), None),
    "data_set": lambda file: (data_set_with(CLASSES), None),
    "dict": lambda file: ({"x": X, "label": CLASSES}, "label"),
    "frame": lambda file: (FRAME, "label"),
    "arrow": lambda file: (pa.Table.from_pandas(FRAME), "label"),
    "csv": lambda file: (FRAME.to_csv(file, index=False) or file, "label"),
    "parquet": lambda file: (FRAME.to_parquet(file) or file, "label"),
}


@pytest.mark.parametrize("kind", IN_X)
@pytest.mark.parametrize("keep", [None, "label"])
def test_labels_come_with_the_input(pair, tmp_path, kind, keep, small):
    path = tmp_path / "out.parquet"
    x, labels = IN_X[kind](tmp_path / f"x.{kind}")
    options = {"labels": labels, "metrics": "accuracy"}
    if keep and labels:
        options["keep"] = keep
    report = write(pair, path, x, **options)
    table = pd.read_parquet(path)
    found = np.stack(table["output"])
    np.testing.assert_allclose(found, pair.predict(X, verbose=0), rtol=1e-5)
    expected = {"accuracy": pytest.approx(np.mean(found.argmax(1) == CLASSES))}
    assert report.metrics == expected
    assert {*table.columns} == {"row", "output"} | {*options.get("keep", "").split()}
    if labels and kind != "csv":  # whose number of rows is not known before
        for index in range(2):
            write(pair, tmp_path / "parts.parquet", x, shard=(index, 2), **options)
        assert merge(tmp_path / "parts.parquet").metrics == expected


def test_missing_labels_are_noticed(pair, output):
    table = pa.Table.from_pandas(FRAME)
    missing = pa.Table.from_pandas(
        FRAME.assign(label=FRAME["label"].where(X[:, 0] < 1))
    )
    for x, labels, message in (
        (X, "label", "'label' is a name, but x is ndarray, which has no named columns"),
        (FRAME, "y", "labels in x: there is no 'y'; received a, label, b."),
        (table, "y.csv", "For labels in a file, pass pathlib.Path('y.csv')."),
        (missing, "label", "holds a null, expected a value."),
        (file_runs.generator(X), None, "the elements of x are not (x, y)"),
    ):
        with pytest.raises((ValueError, KeyError), match=re.escape(message)):
            write(pair, output, x, labels=labels, metrics="accuracy")
        assert not output.exists()


@pytest.mark.parametrize("kind", ["array", "list", "column", "npy", "csv", "parquet"])
def test_labels_come_from_arrays_and_files(pair, output, kind):
    frame = pd.DataFrame({"label": CLASSES})
    file = output.with_name(f"labels.{kind}")
    if kind == "npy":
        np.save(file, CLASSES)
    elif kind in ("csv", "parquet"):
        {"csv": frame.to_csv, "parquet": frame.to_parquet}[kind](file, index=False)
    own = {"array": CLASSES, "list": CLASSES.tolist(), "column": CLASSES[:, None]}
    report = write(pair, output, file_runs.generator(X), labels=own.get(kind, file))
    classes = np.load(output).argmax(1)
    assert report.metrics == {"accuracy": pytest.approx(np.mean(classes == CLASSES))}


def test_class_ids_are_compared_with_labels(pair, output):
    report = write(pair, output, X, method="predict_classes", labels=CLASSES)
    expected = np.mean(np.load(output) == CLASSES)
    assert report.metrics == {"accuracy": pytest.approx(expected)}


@pytest.mark.parametrize("labels", [CLASSES, CLASSES[:, None]])
def test_the_best_classes_are_compared_with_labels(pair, tmp_path, labels, small):
    how = {"method": "predict_top_k", "k": 2, "metrics": ["accuracy", "top_k"]}
    output = tmp_path / "out.parquet"
    report = write(pair, output, X, labels=labels, **how)
    hits = np.stack(pd.read_parquet(output)["classes"]) == CLASSES[:, None]
    expected = {"accuracy": hits[:, 0].mean(), "top_k": hits.any(1).mean()}
    assert report.metrics == pytest.approx(expected)
    again = write(pair, output, X, labels=labels, resume=True, **how)
    assert again.metrics == report.metrics
    with pytest.raises(ValueError, match="'auc' cannot be computed from the results"):
        write(
            pair, output, X, labels=labels, overwrite=True, **how | {"metrics": "auc"}
        )


def test_rows_that_could_not_be_read_are_left_out(strategies, tmp_path, small):
    layers = [keras.Input((2, 2, 3)), keras.layers.Flatten(), keras.layers.Dense(3)]
    with strategies[2].scope():
        predictor = mgpu.Predictor(keras.Sequential(layers))
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(2).integers(0, 9, (NUM_ROWS, 2, 2, 3), np.uint8)
    for row, image in enumerate(pixels):
        keras.utils.save_img(tmp_path / f"images/{row:03}.png", image, scale=False)
    bad = [3, *range(16, 33), 60]
    for row in bad:
        (tmp_path / f"images/{row:03}.png").write_bytes(b"")
    x = mgpu.files.Images(tmp_path / "images", on_bad_file="skip")
    options = {"method": "predict", "labels": CLASSES, "metrics": [Rows()]}
    report = write(predictor, tmp_path / "out.npy", x, **options)
    assert report.metrics == {"rows": NUM_ROWS - len(bad)}


def test_outputs_in_a_list_have_the_names_of_keras(strategies, output, small):
    x = keras.Input((2,))
    scores = keras.layers.Dense(3, "softmax", name="scores")(x)
    chance = keras.layers.Dense(1, "sigmoid", name="chance")(x)
    model = keras.Model(x, [scores, chance])
    labels = [CLASSES, (CLASSES > 1).astype(np.float32)]
    losses = ["sparse_categorical_crossentropy", "mse"]
    model.compile(loss=losses, metrics=[["accuracy"], ["mae"]])
    expected = model.evaluate(X, labels, verbose=0, return_dict=True)
    with strategies[2].scope():
        predictor = mgpu.Predictor(model)
    metrics = {"scores": "accuracy", "chance": "mae"}
    for some in (labels, {"scores": labels[0], "chance": labels[1]}):
        how = {"labels": some, "metrics": metrics, "overwrite": True}
        found = write(predictor, output, X, **how).metrics
        names = ["scores_accuracy", "chance_mae"]
        assert [*found] == names
        assert found == pytest.approx({name: expected[name] for name in names})
    with pytest.raises(ValueError, match=r"\['scores', 'chance'\], but metrics names"):
        how = {"labels": labels, "metrics": {"output_0": "mse"}, "overwrite": True}
        write(predictor, output, X, **how)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_narrow_results_have_all_metrics(strategies, output, dtype, small):
    layers = [keras.Input((2,)), keras.layers.Dense(3, "softmax")]
    with strategies[2].scope():
        predictor = mgpu.Predictor(keras.Sequential(layers), output_dtype=dtype)
    given, same = metrics_of_one_hot()
    labels = ONE_HOT.astype(dtype)
    report = write(predictor, output, X, labels=labels, metrics=given)
    expected = of_keras(same, ONE_HOT, np.load(output).astype(np.float32))
    for found, value in zip(report.metrics.values(), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-5)


@pytest.mark.parametrize("kind", ["array", "arrow", "elements"])
def test_no_rows_have_no_metrics(pair, output, kind):
    table = pa.Table.from_pandas(FRAME)
    empty = {
        "array": (X[:0], CLASSES[:0]),
        "arrow": (table[:0], "label"),
        "elements": (iter([(X[:0], CLASSES[:0])]), None),
    }
    x, labels = empty[kind]
    how = {"labels": labels, "metrics": "accuracy"}
    for _ in range(1 if kind == "elements" else 2):
        assert write(pair, output, x, resume=True, **how).metrics == {}


@pytest.mark.parametrize("labels", ["label", CLASSES[:48]], ids=["column", "array"])
def test_a_run_killed_after_its_last_row_has_its_metrics(
    pair, output, labels, monkeypatch, small
):
    file_runs.make_small(monkeypatch, flushes=True)
    x = pa.Table.from_pandas(FRAME[:48]) if isinstance(labels, str) else X[:48]
    expected = write(pair, output, x, labels=labels).metrics
    output.unlink()
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(Target, "mark", fail_here)
        write(pair, output, x, labels=labels, overwrite=True)
    known = journals.read(file_runs.journal_of(output)).progress
    assert known.rows == known.start == known.metrics["row"] == 48
    assert write(pair, output, x, labels=labels, resume=True).metrics == expected


def fail_here(*args):
    raise InterruptedError


def test_several_outputs_have_metrics_by_name(strategies, output, small):
    with strategies[2].scope():
        predictor = mgpu.Predictor(file_runs.two_headed())
    labels = {"scores": CLASSES, "chance": CLASSES > 1}
    metrics = {"chance": ["accuracy", "auc"], "scores": "accuracy"}
    report = write(predictor, output, X, labels=labels, metrics=metrics)
    found = file_runs.results_in(output)
    of = keras.metrics
    first = [of.BinaryAccuracy(), of.AUC()]
    expected = of_keras(first, CLASSES[:, None] > 1, found["chance"])
    expected += of_keras([of.SparseCategoricalAccuracy()], CLASSES, found["scores"])
    names = ["chance_accuracy", "chance_auc", "scores_accuracy"]
    np.testing.assert_allclose([report.metrics[name] for name in names], expected, 1e-6)
    for wrong, message in (
        ("auc", "metrics names none of them"),
        ({"no": "auc"}, "no"),
    ):
        with pytest.raises(ValueError, match=message):
            write(predictor, output, X, labels=labels, metrics=wrong, overwrite=True)


OPTIONS = {
    "labels": ONE_HOT,
    "metrics": ["accuracy", "mse", "auc", keras.metrics.F1Score(), Rows()],
}


@pytest.mark.parametrize("kind", file_runs.FAILING)
@pytest.mark.parametrize("recorded", [2**24, 0])
def test_a_run_that_failed_twice_has_the_same_metrics(
    pair, output, kind, recorded, monkeypatch, small
):
    file_runs.make_small(monkeypatch, flushes=True)
    # If large states are not allowed, the journal has one only at the end.
    monkeypatch.setattr(run_metrics, "_RECORDED_BYTES", recorded or 1e-9)
    expected = write(pair, output, X, **OPTIONS)
    content = output.read_bytes()
    output.unlink()
    fail(pair, output, kind, 23, **OPTIONS)
    known = journals.read(file_runs.journal_of(output)).progress
    assert (known.metrics or {"row": None})["row"] == (16 if recorded else None)
    fail(pair, output, kind, 48, resume=True, **OPTIONS)
    report = write(pair, output, file_runs.FAILING[kind](X), resume=True, **OPTIONS)
    assert report.metrics == expected.metrics
    assert output.read_bytes() == content


@pytest.mark.parametrize("labels", ["label", CLASSES[:45]], ids=["column", "array"])
def test_a_run_killed_anywhere_has_the_same_metrics(
    pair, tmp_path, labels, monkeypatch, small
):
    file_runs.make_small(monkeypatch, flushes=True)
    output = tmp_path / "outputs" / "out.npy"
    output.parent.mkdir()
    options = {"labels": labels, "metrics": "sparse_categorical_crossentropy"}
    x = pa.Table.from_pandas(FRAME[:45]) if isinstance(labels, str) else X[:45]
    found = []

    def run():
        found.append(write(pair, output, x, **options).metrics)

    taken = snapshots(run, output.parent, tmp_path / "snapshots", monkeypatch)
    assert len(taken) > 12
    for folder in taken:
        resumed = write(pair, folder / output.name, x, resume=True, **options)
        assert resumed.metrics == found[0]


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_metrics_of_shards_are_added(predictors, tmp_path, suffix, small):
    given, _ = metrics_of_one_hot()
    options = {"labels": ONE_HOT, "metrics": given}
    path = tmp_path / f"out{suffix}"
    for index, predictor in ((2, predictors[1]), (0, predictors[2])):
        write(predictor, path, X, shard=(index, 3), batch_size=None, **options)
    part = write(predictors[2], path, X, shard=(1, 3), batch_size=None, **options)
    assert part.metrics["rows"] == 20
    own = {"Rows": Rows, "distance": distance}
    with pytest.raises(ValueError, match="custom_objects={'Rows': ...}"):
        merge(path)
    merged = merge(path, own)
    whole = write(predictors[2], tmp_path / f"whole{suffix}", X, **options)
    assert merged.metrics.keys() == whole.metrics.keys()
    for name, value in whole.metrics.items():
        np.testing.assert_allclose(merged.metrics[name], value, rtol=1e-6, atol=1e-6)
    resumed = write(predictors[2], path, X, resume=True, batch_size=None, **options)
    assert resumed.metrics == merged.metrics


class NoConfig(keras.metrics.Mean):
    """A metric that cannot be copied."""

    def __init__(self, needed):
        super().__init__()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": "auc"}, "Received metrics= without labels=, and x is not a gene"),
        ({"labels": CLASSES[:5]}, "61 rows in x, but 5 in labels. Expected one"),
        ({"labels": np.arange(62)}, "61 rows in x, but 62 in labels."),
        ({"labels": CLASSES.astype(str)}, "labels or results of dtype object"),
        ({"labels": CLASSES, "metrics": []}, "metrics=[]. Expected at least one"),
        ({"labels": CLASSES, "metrics": "nope"}, "There is no metric 'nope'."),
        ({"labels": CLASSES, "metrics": "MeanIoU"}, "Pass a keras.metrics object."),
        ({"labels": CLASSES, "metrics": {"a": "mse"}}, "['output'], but metrics names"),
        ({"labels": CLASSES, "metrics": NoConfig(3)}, "Return all arguments of its cl"),
        (
            {"labels": ONE_HOT[:, :2], "metrics": "mse"},
            "cannot be computed from labels of shape ('rows', 2) and results of shape",
        ),
        (
            {"labels": CLASSES, "metrics": Rows(aggregation="mean"), "shard": (0, 2)},
            "variables that are not sums over the rows (aggregation MEAN)",
        ),
        (
            {"labels": ONE_HOT, "method": "predict_top_k", "k": 3},
            "The labels have 3 values a row, expected the index of the class",
        ),
        (
            {"labels": ONE_HOT, "method": "predict_top_k", "k": 1},
            "The labels have 3 values a row, expected the index of the class",
        ),
        (
            {
                **{"labels": CLASSES, "method": "predict_top_k", "k": 2},
                "metrics": {"probabilities": "accuracy"},
            },
            "by the names of outputs, for the results of predict_top_k",
        ),
        (
            {"labels": CLASSES, "metrics": keras.metrics.MeanMetricWrapper(distance)},
            "wraps a function. Pass the function itself",
        ),
    ],
)
def test_what_cannot_be_computed_is_refused_before_a_file_is_made(
    pair, output, options, message
):
    with pytest.raises(ValueError, match=re.escape(message)):
        write(pair, output, X, **options)
    assert not [*output.parent.iterdir()]


def test_labels_of_another_length_than_a_stream_are_noticed(pair, output):
    for count, message in ((50, "has row 50 too"), (70, "there are more in labels")):
        of_unknown_length = (np.zeros(5, int) for _ in range(count // 5))
        for labels in (of_unknown_length, np.zeros(count, int)):
            how = {"labels": labels, "overwrite": True}
            with pytest.raises(ValueError, match=message):
                write(pair, output, file_runs.generator(X), **how)
            assert not output.exists()


def test_labels_beside_no_rows_are_noticed(pair, output, tmp_path):
    for count in (0, 3):
        pd.DataFrame({"y": CLASSES[:count]}).to_csv(tmp_path / f"{count}.csv")
    named = {"labels": mgpu.files.Csv(tmp_path / "3.csv", columns="y")}
    with pytest.raises(ValueError, match="x ended after 0 rows, but there are more in"):
        write(pair, output, X[:0], overwrite=True, **named)
    assert not output.exists()
    named = {"labels": mgpu.files.Csv(tmp_path / "0.csv", columns="y")}
    assert write(pair, output, X[:0], overwrite=True, **named).rows == 0


def test_a_shard_reads_some_of_labels_of_unknown_length(pair, output, tmp_path):
    pd.DataFrame({"y": CLASSES}).to_csv(tmp_path / "y.csv", index=False)
    for shard in ((0, 2), (1, 2)):
        write(pair, output, X, labels=tmp_path / "y.csv", shard=shard)
    expected = np.mean(pair.predict(X, verbose=0).argmax(-1) == CLASSES)
    assert merge(output).metrics == {"accuracy": pytest.approx(expected)}


def picky(y_true, y_pred):
    """Raises for some labels."""
    right = keras.ops.cast(y_true, "int32")
    with tf.control_dependencies([tf.debugging.assert_less(right, 3)]):
        return tf.zeros_like(y_pred[:, 0])


def test_a_metric_that_fails_leaves_rows_and_metrics_before(
    pair, output, monkeypatch, small
):
    file_runs.make_small(monkeypatch, flushes=True)
    labels = np.where(np.arange(NUM_ROWS) == 40, 3, CLASSES)
    with pytest.raises(tf.errors.InvalidArgumentError) as info:
        write(pair, output, X, labels=labels, metrics=["accuracy", picky])
    assert "Raised while the metrics of rows 32 to 48" in info.value.__notes__[0]
    known = journals.read(file_runs.journal_of(output)).progress
    assert known.rows >= 48 and known.start == known.metrics["row"] == 32


def test_many_runs_do_not_look_like_retraces(pair, output, caplog):
    for _ in range(6):
        write(pair, output, X, labels=CLASSES, overwrite=True)
    assert "retracing" not in caplog.text


def test_an_interrupt_never_leaves_rows_that_are_counted_twice(
    pair, output, monkeypatch, small
):
    file_runs.make_small(monkeypatch, flushes=True)
    whole = write(pair, output, X, labels=CLASSES)
    begin = judging.OnHost.begin

    def interrupted(self, function, *args):
        begin(self, function, *args)
        if args and getattr(args[0], "start", 0) == 32:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(judging.OnHost, "begin", interrupted)
        write(pair, output, X, labels=CLASSES, overwrite=True)
    known = journals.read(file_runs.journal_of(output)).progress
    assert known.metrics["row"] == 32
    again = write(pair, output, X, labels=CLASSES, resume=True)
    assert again.metrics == whole.metrics


def test_another_run_is_not_resumed(pair, output):
    write(pair, output, X, labels=CLASSES)
    others = [{}, {"labels": CLASSES[::-1]}, {"labels": CLASSES, "metrics": "mse"}]
    for options in others:
        with pytest.raises(ValueError, match="another run wrote it"):
            write(pair, output, X, resume=True, **options)
