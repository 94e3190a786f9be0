"""Reports: their counts, and the sentence that names the bottleneck."""

import pathlib
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.report import STAGES, BackOff, Report, StageClock, rate_text

ROWS = np.random.default_rng(0).random((100, 4), dtype=np.float32)


def report_of(shares, seconds=10.0, compile_seconds=0.0, back_offs=()):
    return Report(
        rows=1000,
        seconds=seconds,
        bytes_in=2**20,
        bytes_out=2**19,
        replica_rows=(600, 400),
        batch_size=8,
        chunk_rows=64,
        compile_seconds=compile_seconds,
        tried_batches=(),
        back_offs=back_offs,
        shares=dict(zip(STAGES, shares, strict=True)),
    )


@pytest.mark.parametrize(
    ("shares", "sentence"),
    [
        ((0.05, 0.01, 0.90, 0.02, 0.02), "compute-bound: 90%"),
        ((0.71, 0.00, 0.20, 0.05, 0.04), "input-bound: 71%"),
        ((0.10, 0.00, 0.20, 0.60, 0.10), "transfer-bound: 60%"),
        ((0.10, 0.60, 0.20, 0.00, 0.10), "transfer-bound: 60%"),
        ((0.05, 0.00, 0.30, 0.05, 0.60), "write-bound: 60%"),
        # Much computing and one large wait: the wait can be fixed.
        ((0.40, 0.00, 0.50, 0.05, 0.05), "input-bound: 40%"),
        # Copies in both directions count together.
        ((0.05, 0.20, 0.50, 0.20, 0.05), "transfer-bound: 40%"),
        # Waits are many and small: computing is still the largest part.
        ((0.15, 0.05, 0.60, 0.10, 0.10), "compute-bound: 60%"),
    ],
)
def test_the_bottleneck_is_named(shares, sentence):
    report = report_of(shares)
    assert report.bottleneck.startswith(sentence)
    assert report.bound == sentence.partition("-bound")[0]


def test_compiling_is_named_if_it_took_most_of_the_time():
    report = report_of((0, 0, 1, 0, 0), seconds=4, compile_seconds=3)
    assert report.bottleneck.startswith("compile-bound: 75%")
    assert report.bound == "compile"


def test_a_run_that_has_not_begun_has_a_report():
    report = StageClock(1).report()
    assert (report.rows, report.seconds, report.bound) == (0, 0, "compute")
    assert str(report) == report.bottleneck
    assert (
        report.bottleneck == "No row was run: there was none, or all were done before."
    )


def test_a_person_can_read_it():
    text = str(report_of((0, 0, 1, 0, 0), back_offs=(BackOff(40, 16, 8),)))
    assert "1,000 rows in 10.00 s: 100 rows/s" in text
    assert "2 replicas ran 600, 400 rows, 8 a batch, up to 64 a chunk" in text
    slow = str(report_of((0, 0, 1, 0, 0), seconds=400.0))
    assert "1,000 rows in 400.00 s: 2.5 rows/s" in slow
    assert "out of memory at row 40: batch 16 -> 8" in text


@pytest.mark.parametrize(
    ("rows_per_second", "text"),
    [
        *((0.0, "0"), (0.0333, "0.033"), (0.5, "0.50"), (3.0, "3.0"), (9.94, "9.9")),
        *((9.96, "10"), (12.3, "12"), (45_600.4, "45,600")),
    ],
)
def test_few_rows_a_second_keep_their_decimals(rows_per_second, text):
    assert rate_text(rows_per_second) == text


def test_idle_time_is_split_by_what_was_waited_for():
    clock = StageClock(2)
    clock.start()
    clock.add("compute", 0.0)
    clock.add("input", 3.0)
    clock.add("copy_out", 1.0)
    time.sleep(0.01)
    clock.add_delivered(1, 1)
    shares = clock.report().shares
    assert shares == pytest.approx(
        dict(zip(STAGES, (0.75, 0, 0, 0.25, 0), strict=True))
    )


@pytest.mark.parametrize("engine", ["threads", "mirrored"])
def test_a_run_is_counted(engine, strategies):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with strategies[2].scope():
        predictor = mgpu.Predictor(model, engine=engine)
    assert predictor.report is None
    predictor.predict(ROWS, batch_size=16, verbose=0)
    first = predictor.report
    assert (first.rows, first.num_replicas, first.batch_size) == (100, 2, 8)
    assert sum(first.replica_rows) == 100
    assert first.bytes_in == 13 * 8 * 4 * 4  # 13 batches, the last one padded
    assert first.bytes_out == 100 * 3 * 4
    assert 0 < first.compile_seconds < first.seconds
    assert sum(first.shares.values()) == pytest.approx(1)
    predictor.predict(ROWS, batch_size=16, verbose=0)
    assert predictor.report.compile_seconds == 0


def test_a_slow_input_is_the_bottleneck(strategies):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with strategies[2].scope():
        predictor = mgpu.Predictor(model)
    predictor.predict(ROWS, batch_size=16, verbose=0)

    def slowly():
        for start in range(0, 96, 16):
            time.sleep(0.1)
            yield ROWS[start : start + 16]

    predictor.predict(slowly(), batch_size=16, verbose=0)
    assert predictor.report.bottleneck.startswith("input-bound")


def test_a_slow_consumer_is_the_bottleneck(strategies):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    rows = tf.repeat(ROWS, 20, axis=0).numpy()
    with strategies[2].scope():
        predictor = mgpu.Predictor(model)
    predictor.predict(rows, batch_size=16, verbose=0)
    for _ in predictor.predict_iter(rows, batch_size=16):
        time.sleep(0.05)
    assert predictor.report.bottleneck.startswith("write-bound")


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_a_profile_is_written(kind, tmp_path, strategies):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with strategies[1].scope():
        predictor = mgpu.Predictor(model, profile=kind(tmp_path))
    predictor.predict(ROWS, batch_size=16, verbose=0)
    assert list(tmp_path.rglob("*.xplane.pb"))


class Naps(keras.layers.Layer):
    """Takes some time, as a large model does."""

    def call(self, inputs):
        def nap(rows):
            time.sleep(0.05)
            return rows

        outputs = tf.numpy_function(nap, [inputs], inputs.dtype, stateful=False)
        outputs.set_shape(inputs.shape)
        return outputs


@pytest.mark.parametrize("engine", ["threads", "mirrored"])
def test_a_slow_model_is_the_bottleneck_on_several_replicas(engine, strategies):
    with strategies[2].scope():
        model = keras.Sequential([keras.Input((4,)), Naps(), keras.layers.Dense(3)])
        predictor = mgpu.Predictor(model, engine=engine)
    for _ in range(2):
        predictor.predict(ROWS, batch_size=8, verbose=0)
    assert predictor.report.bottleneck.startswith("compute-bound")
    assert predictor.report.shares["compute"] > 0.6
