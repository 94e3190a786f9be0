"""Ensembles into files: every combination, resumed only by the same ensemble."""

import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from tests import file_runs
from tests.outputs import places
from tests.resuming import X, assert_same_files, fail, uninterrupted, write


@pytest.fixture(scope="module")
def members():
    return [file_runs.classifier(seed=seed) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def make(members, strategies):
    """Makes a Predictor of the members with these numbers."""

    def made(*numbers, num_replicas=2, **options):
        with strategies[num_replicas].scope():
            chosen = [members[number] for number in numbers or (0, 1, 2)]
            return mgpu.Predictor(chosen, **options)

    return made


@pytest.mark.parametrize("combine", ["mean_std", "stack", "vote"])
def test_every_combination_is_written_as_it_is_returned(combine, make, path):
    predictor = make(combine=combine)
    # A table's rows are numbers and vectors, so the class of each member is written.
    method = "predict_classes" if combine == "stack" else "predict"
    expected = getattr(predictor, method)(X, file_runs.BATCH, verbose=0)
    write(predictor, path, X, method=method)
    found = file_runs.results_in(path)
    arrays = expected if isinstance(expected, dict) else {"output": expected}
    assert {name.rpartition(".")[2] for name in found} == set(arrays)
    for name, array in found.items():
        wanted = arrays[name.rpartition(".")[2]]
        same = array.reshape(wanted.shape).astype(wanted.dtype)
        np.testing.assert_array_equal(same, wanted)


def test_a_run_is_resumed_only_by_the_same_ensemble(make, path):
    first = make(0, 1)
    fail(first, path, "array", 30)
    assert 0 < file_runs.safe_rows(path) < 30
    before = places.tree(path.parent)
    others = {
        "model": [make(1, 0), make(0, 2), make(0, 1, 2)],
        "combine": [make(0, 1, combine="gmean")],
    }
    for setting, predictors in others.items():
        for other in predictors:
            with pytest.raises(ValueError, match=rf"different run.*{setting}: '"):
                write(other, path, X, resume=True)
    with pytest.raises(ValueError, match=r"combine: 'mean' before, None now; model:"):
        write(make(0), path, X, resume=True)
    assert places.tree(path.parent) == before
    again = make(0, 1, num_replicas=1, combine="mean")
    write(again, path, X, batch_size=file_runs.BATCH // 2, resume=True)
    assert_same_files(path, uninterrupted(first, path, X))
    file_runs.assert_nothing_beside(path)


def test_metrics_of_what_is_combined(make, members, out):
    labels = np.random.default_rng(0).integers(0, 3, len(X))
    report = write(make(combine="gmean"), out, X, labels=labels)
    scores = np.prod([member.predict(X, verbose=0) for member in members], 0)
    assert report.metrics["accuracy"] == pytest.approx(
        np.mean(scores.argmax(-1) == labels)
    )
    assert np.load(out).shape == (len(X), 3)
    voting, how = make(combine="vote"), {"labels": labels, "overwrite": True}
    votes = np.mean(voting.predict(X, verbose=0) == labels)
    for method in ("predict", "predict_classes"):
        report = write(voting, out, X, method=method, **how)
        assert report.metrics["accuracy"] == pytest.approx(votes)
    with pytest.raises(ValueError, match='combine="stack", whose results have a row'):
        write(make(combine="stack"), out, X, **how)
    batches = list(make().predict_iter(X, file_runs.BATCH))
    mean = np.mean([member.predict(X, verbose=0) for member in members], 0)
    found = np.concatenate([batch.outputs for batch in batches])
    np.testing.assert_allclose(found, mean, 1e-5)
    assert tf.nest.is_nested(make(combine="mean_std").predict(X[:2], verbose=0))
