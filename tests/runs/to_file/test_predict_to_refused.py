"""Runs other than that of the journal are refused, and nothing is touched."""

import os
import re

import numpy as np
import pytest

import keras_mgpu_strategy as mgpu
from tests import file_runs
from tests.file_runs import BATCH
from tests.outputs import places
from tests.resuming import X, assert_same_files, fail, uninterrupted, write


def assert_refused(pair, path, x, message, **options):
    before = places.tree(path.parent)
    with pytest.raises(ValueError, match=message) as info:
        write(pair, path, x, **({"resume": True} | options))
    assert places.tree(path.parent) == before
    return info.value


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": BATCH * 2}, r"\(per-replica batch: 4 before, 8 now\)"),
        ({"batch_size": None}, r"\(per-replica batch: 4 before, None now\)"),
        ({"method": "predict"}, r"\(method: 'predict_proba' before, 'predict' now\)"),
        ({"from_logits": True}, r"\(from_logits: False before, True now\)"),
        ({"steps": 100}, r"\(steps: None before, 100 now\)"),
        ({"method": "predict", "steps": 3}, "method: .*; .*steps: None before, 3 now"),
    ],
)
def test_another_request_is_refused(pair, out, options, message):
    fail(pair, out, "generator", 33)
    message = f"belongs to a different run, so it cannot be resumed .*{message}"
    assert_refused(pair, out, file_runs.generator(X), message, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: X[:-1], "rows of the input: 61 before, 60 now"),
        (lambda: file_runs.generator(X), "rows of the input: 61 before, None now"),
    ],
    ids=["rows", "generator"],
)
def test_another_input_is_refused(pair, out, make, message):
    fail(pair, out, "array", 33)
    assert_refused(pair, out, make(), message)


def test_what_is_cast_to_the_same_input_is_the_same(pair, out):
    fail(pair, out, "array", 33)
    write(pair, out, X.astype(np.float64), resume=True)
    assert_same_files(out, uninterrupted(pair, out, X))


def test_strings_in_place_of_numbers_are_refused(pair, out):
    fail(pair, out, "array", 33)
    assert_refused(pair, out, X.astype(str), "float32")


def test_another_model_is_refused(pair, strategies, out):
    fail(pair, out, "generator", 33)
    with strategies[2].scope():
        other = mgpu.Predictor(file_runs.classifier(seed=8))
    message = (
        r"belongs to a different run.*\(model: '\w+\.\.\. before, '\w+\.\.\. now\)"
    )
    assert_refused(other, out, file_runs.generator(X), message)


@pytest.mark.parametrize("kind", ["keras", "saved_model"])
def test_other_outputs_are_refused(kind, strategies, tmp_path):
    model, path = file_runs.two_headed(), tmp_path / "o.npy"
    model.export(tmp_path / "exported", verbose=False)
    names = ("scores", "chance")
    if kind == "keras":
        names = tuple(layer.name for layer in model.layers[1:])

    def predictor(outputs):
        with strategies[2].scope():
            if kind == "keras":
                return mgpu.Predictor(model, outputs=outputs)
            return mgpu.load(tmp_path / "exported", outputs=outputs)

    fail(predictor(names[0]), path, "generator", 33)
    for outputs in (names[1:], names, None):
        now = outputs and [*outputs]
        message = re.escape(f"outputs: {[names[0]]} before, {now} now")
        message = f"different run.*model: .*{message}"
        assert_refused(predictor(outputs), path, file_runs.generator(X), message)
    write(predictor(names[0]), path, file_runs.generator(X), resume=True)
    assert len(np.load(path)) == len(X)


def test_the_same_model_on_other_replicas_resumes(predictors, out):
    fail(predictors[2], out, "generator", 33)
    write(predictors[1], out, file_runs.generator(X), resume=True, batch_size=4)
    assert_same_files(out, uninterrupted(predictors[2], out, X))


def test_more_replicas_with_another_share_are_refused(predictors, out):
    fail(predictors[1], out, "generator", 33)
    message = r"per-replica batch: 8 before, 4 now"
    assert_refused(predictors[2], out, file_runs.generator(X), message)


def test_a_damaged_journal_is_refused(pair, out):
    fail(pair, out, "generator", 33)
    journal = file_runs.journal_of(out)
    content = bytearray(journal.read_bytes())
    content[20] ^= 1
    journal.write_bytes(content)
    assert_refused(pair, out, file_runs.generator(X), "is damaged in line")


def test_a_missing_partial_output_is_refused(pair, out):
    fail(pair, out, "generator", 33)
    os.rename(file_runs.partial_of(out), out.with_name("elsewhere"))
    error = assert_refused(pair, out, file_runs.generator(X), "is missing")
    assert "are safe in" not in "".join(getattr(error, "__notes__", []))
    os.rename(out.with_name("elsewhere"), file_runs.partial_of(out))
    write(pair, out, file_runs.generator(X), resume=True)
    assert_same_files(out, uninterrupted(pair, out, X))


def test_a_truncated_partial_output_is_refused(pair, out):
    fail(pair, out, "generator", 33)
    partial = file_runs.partial_of(out)
    partial.write_bytes(partial.read_bytes()[:300])
    assert_refused(pair, out, file_runs.generator(X), "cannot be continued")


def test_a_generator_that_has_become_shorter_is_refused(pair, out):
    fail(pair, out, "generator", 33)
    message = "Received start=.*, but the input has only 20 rows"
    assert_refused(pair, out, file_runs.generator(X[:20]), message)
    write(pair, out, file_runs.generator(X), resume=True)
    assert_same_files(out, uninterrupted(pair, out, X))


def test_a_generator_that_was_used_is_refused(pair, out):
    fail(pair, out, "generator", 33)
    x = file_runs.generator(X)
    pair.predict(x, BATCH, steps=2, verbose=0)
    assert_refused(pair, out, x, "first row: .* before, .* now")
