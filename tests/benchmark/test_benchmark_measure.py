"""What is measured, on a CPU that the tests have already split into four."""

import dataclasses
import itertools
import json
import os
import types

import keras
import numpy as np
import pytest

from keras_mgpu_strategy.benchmark import (
    contenders,
    machine,
    measure,
    processes,
    runtimes,
)
from keras_mgpu_strategy.benchmark.options import RUNTIMES, STEPS, BenchmarkOptions
from keras_mgpu_strategy.benchmark.rows import build, make_rows
from tests import helpers
from tests.conformance import zoo


def record_of(folder, **options):
    """Measures in this process instead of a new one."""
    one = {"batches": (2,), "replicas": (4,), "repetitions": 2, "devices": "cpu"}
    job = json.dumps(dataclasses.asdict(BenchmarkOptions(**one | options)))
    processes.serve(
        lambda **f: measure.run(BenchmarkOptions(**f)), job, str(folder / "record")
    )
    return json.loads((folder / "record").read_text())


def saved(folder, *layers, shape=(3,)):
    path = str(folder / "own.keras")
    keras.Sequential([keras.Input(shape), *layers]).save(path)
    return path


def test_a_baseline_that_fails_leaves_the_others(tmp_path):
    # 17 rows in batches of 8: under Keras' strategy the last batch leaves three
    # replicas without rows, on which layers may fail.
    path = saved(tmp_path, zoo.NeverEmpty(), keras.layers.Dense(2))
    names = ("keras", "keras_strategy", "mgpu_threads", "mgpu_mirrored")
    with keras.saving.custom_object_scope({"NeverEmpty": zoo.NeverEmpty}):
        record = record_of(tmp_path, models=(path,), contenders=names, rows=17)
    assert list(record["contenders"]) == list(names)
    assert list(record["contenders"].pop("keras_strategy")) == ["error"]
    assert record["rows"] == 17
    names = [name.rpartition("device:")[2] for name in record["devices"]]
    assert names == ["CPU:0", "CPU:1", "CPU:2", "CPU:3"]
    for each in record["contenders"].values():
        assert len(each["seconds"]) == len(each["rows_per_second"]) == 2
        assert each["largest_difference"] < 1e-5
    assert record["contenders"]["keras"]["report"] is None
    report = record["contenders"]["mgpu_threads"]["report"]
    assert (report["rows"], report["batch_size"]) == (17, 2)
    assert sum(report["shares"].values()) == pytest.approx(1)


def test_the_candidates_of_compile_and_other_runtimes(tmp_path):
    layers = [keras.layers.LSTM(4), keras.layers.BatchNormalization()]
    path = saved(tmp_path, *layers, shape=(5, 3))
    names = (*STEPS, *RUNTIMES)
    record = record_of(tmp_path, models=(path,), contenders=names, rows=17)
    assert list(record["contenders"]) == list(names)
    assert record["left_out"] == []
    assert 0 < record["largest_value"] < 1
    for each in record["contenders"].values():
        assert each["largest_difference"] < 1e-6
        assert each["rows"] == 17
    steps = [record["contenders"][name]["report"]["step"] for name in STEPS]
    assert steps == ["plain", "frozen", "xla"]


def test_a_candidate_that_cannot_be_made_leaves_the_others(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no such op")

    monkeypatch.setattr(runtimes, "_converted", fail)
    names = ("mgpu_plain", "onnxruntime")
    path = saved(tmp_path, keras.layers.Dense(2))
    record = record_of(tmp_path, models=(path,), contenders=names, rows=8)
    error = {"error": "RuntimeError: no such op"}
    assert record["contenders"]["onnxruntime"] == error
    assert len(record["contenders"]["mgpu_plain"]["seconds"]) == 2


def test_what_is_not_installed_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(runtimes, "missing", lambda name: name == "openvino")
    path = saved(tmp_path, keras.layers.Dense(2))
    record = record_of(tmp_path, models=(path,), contenders=RUNTIMES, rows=8)
    assert list(record["contenders"]) == ["onnxruntime"]
    assert record["left_out"] == ["openvino"]


@pytest.mark.parametrize(("patience", "rows"), [(0.0, 32), (1000, 64)])
def test_only_the_first_rows_of_what_is_slow(patience, rows):
    x = {"a": np.zeros((64, 2)), "b": np.zeros(64)}
    calls = []
    kept = measure._all_or_few(calls.append, x, 32, patience)
    assert {len(leaf) for leaf in kept.values()} == {rows}
    assert [len(call["a"]) for call in calls] == [32] * 4
    assert measure._all_or_few(calls.append, x, 64, patience) is x
    assert len(calls) == 4


class Choosing:
    """Simulates a Predictor whose runs try these steps, one after another."""

    def __init__(self, *tried):
        self._tried, self.report, self.rows = iter(tried), None, []

    def predict_iter(self, x, batch_size):
        self.rows.append((x["a"].shape, x["a"].nbytes and x["a"].strides[0]))
        try:
            while True:
                yield batch_size
        finally:
            self.report = types.SimpleNamespace(tried_steps=next(self._tried))


def test_auto_has_chosen_in_a_long_run_before_it_is_timed(monkeypatch):
    now = itertools.count()
    clock = types.SimpleNamespace(perf_counter=lambda: next(now))
    monkeypatch.setattr(contenders, "time", clock)
    x = {"a": np.zeros((6, 2), np.float32)}
    for tried, runs in (
        ([{"plain": 1.0}], 1),
        ([{}, {"plain": 2.0}], 2),
        ([{}] * 3, 3),
    ):
        predictor = Choosing(*tried)
        assert contenders.settle(predictor, x, 4) == tried[-1]
        assert predictor.rows == [((10**9, 2), 0)] * runs


def test_several_models_beside_a_loop_over_them(tmp_path):
    paths = []
    for number, ids in enumerate((9, 3)):
        path = str(tmp_path / f"{number}.keras")
        inputs = keras.Input((4,), dtype="int32")
        outputs = keras.layers.Dense(2)(keras.layers.Embedding(ids, 2)(inputs))
        keras.Model(inputs, outputs).save(path)
        paths.append(path)
    names = ("keras", "keras_strategy", "mgpu_threads", "mgpu_mirrored", *RUNTIMES)
    record = record_of(tmp_path, models=paths, contenders=names, rows=16)
    assert record["model"] == ",".join(paths)
    for each in record["contenders"].values():
        assert each["largest_difference"] < 1e-5


def test_the_mean_of_models_in_turn():
    models = [helpers.dense_model() for _ in range(3)]
    rows = helpers.numbered_rows(5)
    expected = np.mean([model.predict(rows, verbose=0) for model in models], axis=0)
    found = contenders.InTurn(models).predict(rows, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_models_that_do_not_go_together_are_bad_input(tmp_path):
    paths = [str(tmp_path / f"{width}.keras") for width in (2, 3)]
    for path, width in zip(paths, (2, 3), strict=True):
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(width)]).save(path)
    record = record_of(tmp_path, models=paths, contenders=("mgpu_threads",), rows=4)
    assert "Expected models with the same inputs and outputs" in record["bad_input"]


def test_rows_are_found_for_replicas_that_share_a_device(tmp_path):
    record = record_of(
        tmp_path,
        models=(saved(tmp_path, keras.layers.Dense(2)),),
        batches=(None,),
        shared=True,
        contenders=("mgpu_threads",),
        seconds=0.1,
        row_multiple=12,
    )
    assert record["case"] == "one_device"
    assert record["per_replica_batch"] is None
    assert record["rows"] % 12 == 0
    assert record["contenders"]["mgpu_threads"]["report"]["batch_size"] > 1


def test_a_model_for_which_no_rows_can_be_made_is_bad_input(tmp_path):
    path = saved(tmp_path, keras.layers.LSTM(2), shape=(None, 3))
    record = record_of(tmp_path, models=(path,), rows=4)
    assert list(record) == ["bad_input"]
    assert "takes an input of shape [None, 3] and dtype float32" in record["bad_input"]


@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been")
def test_a_model_that_declares_no_inputs_is_bad_input(tmp_path):
    path = str(tmp_path / "own.keras")
    keras.Sequential([keras.layers.Dense(2)]).save(path)
    record = record_of(tmp_path, models=(path,), rows=4)
    assert "does not declare its inputs" in record["bad_input"]


def test_a_job_in_a_process_of_its_own(tmp_path):
    program = ["python", "-c", "import sys; sys.exit(3)"]
    with pytest.raises(RuntimeError, match="failed with exit code 3; its messages are"):
        processes.run_job(BenchmarkOptions(), program)
    bad = "import sys; open(sys.argv[2], 'w').write('{\"bad_input\": \"no GPU\"}')"
    with pytest.raises(ValueError, match="no GPU"):
        processes.run_job(BenchmarkOptions(), ["python", "-c", bad])


def test_rows_and_weights_are_the_same_each_time():
    first, second = build("mlp"), build("mlp")
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    rows = [make_rows(model, "mlp", 5) for model in (first, second)]
    assert rows[0].shape == (5, 784)
    np.testing.assert_array_equal(*rows)


def test_integers_are_those_that_embeddings_know():
    tokens = keras.Input((8,), dtype="int32", name="tokens")
    flags = keras.Input((2,), dtype="bool", name="flags")
    outputs = keras.layers.Embedding(7, 2)(tokens)
    model = keras.Model({"tokens": tokens, "flags": flags}, outputs)
    rows = make_rows(model, "own", 100)
    assert set(rows["tokens"].flat) == set(range(7))
    assert rows["flags"].dtype == bool


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[::-1], "results differ by up to 5.0"),
        (lambda x: x[:-1], r"results of shape \(5, 1\), expected \(6, 1\)"),
        (lambda x: np.where(x == 3, np.nan, x), "results differ by up to"),
    ],
)
def test_wrong_results_are_noticed(change, message):
    x = np.arange(6, dtype=np.float32).reshape(6, 1)
    with pytest.raises(ValueError, match=message):
        measure.largest_difference({"a": change(x)}, {"a": x})


def test_right_results():
    x = np.array([[1.0, np.nan, 2.0]])
    assert measure.largest_difference([x, x > 1], [x + 1e-7, x > 1]) < 1e-6


def test_replicas_that_share_a_cpu_get_equal_parts_of_all_cores(monkeypatch):
    chosen = []
    threading = "tensorflow.config.threading.set_intra_op_parallelism_threads"
    monkeypatch.setattr(threading, chosen.append)
    cores = len(os.sched_getaffinity(0))
    for sharing in (None, 1, 2, cores + 1):
        assert machine.configure("cpu", sharing) == "cpu"
    assert chosen == [1, cores, max(cores // 2, 1), 1]


def test_samples_are_taken_in_turn():
    calls = []

    def sample(name):
        def take():
            calls.append(name)
            return float(len(calls))

        return take

    seconds = measure.in_turn({name: sample(name) for name in "abc"}, repetitions=3)
    assert "".join(calls) == "abc" + "bca" + "cab"
    assert seconds == {"a": [1, 6, 8], "b": [2, 4, 9], "c": [3, 5, 7]}


@pytest.mark.parametrize(
    ("seconds", "most", "rows"),
    [
        (1.0, 10_000, 1000),  # 1 ms a row
        (1.0, 555, 550),  # as many as fit, whole multiples
        (0.001, 10_000, 10),  # never less than one multiple
    ],
)
def test_rows_for_a_length_of_time(seconds, most, rows):
    found = measure.rows_for(seconds, lambda count: count / 1000, 10, most)
    assert found == rows
