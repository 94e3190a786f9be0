"""Compares what a Predictor gives with what the plain model gives on one device."""

import functools
import itertools
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from tests.properties.building import arrays, build
from tests.properties.calling import METHODS, SUFFIXES, predict_to
from tests.properties.feeding import ARRAYS, canonical, hand_over
from tests.properties.spec import Case, Deployment, Graph

MOST_ROWS = 100
"""No case has more."""

_KEPT = 64


class Bench:
    """Models and Predictors, kept for the cases that share them.

    A Predictor learns from its calls how many rows to take at a time. If a failure
    depends on that, hypothesis calls it flaky but still shows the case.

    Args:
        strategies: Number of replicas -> strategy.
    """

    def __init__(self, strategies: Mapping[int, tf.distribute.Strategy]):
        self._strategies = strategies
        self.model = functools.lru_cache(_KEPT)(build)
        self.expected = functools.lru_cache(_KEPT)(self._expected)
        self.predictor = functools.lru_cache(_KEPT)(self._predictor)

    def _expected(self, graph: Graph, lengths: tuple[int, int]) -> Any:
        """Outputs of the plain model for all rows, in one batch."""
        rows = canonical(graph, arrays(graph, lengths, MOST_ROWS))
        outputs = self.model(graph)(rows, training=False)
        return tf.nest.map_structure(lambda leaf: leaf.numpy(), outputs)

    def _predictor(self, deployment: Deployment) -> mgpu.Predictor:
        plain = self.model(deployment.graph)
        strategy = self._strategies[deployment.num_replicas]
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "model.keras")
            if deployment.origin == "loaded":
                plain.save(path)
            with strategy.scope():
                predictor = _place(deployment, plain, path)
        assert predictor.num_replicas == deployment.num_replicas
        return predictor

    def check(self, case: Case) -> None:
        """Runs a case; raises if any row is wrong."""
        batches = [
            (lengths, slice(start, start + rows))
            for lengths, (start, rows) in zip(
                itertools.cycle(case.lengths), _places(case), strict=False
            )
        ]
        expected = [self._rows(case, *batch) for batch in batches]
        found = self._found(case, [_rows_in(case, *batch) for batch in batches])
        if case.results == "predict_batches":
            # If lengths differ, an empty batch is given those of an adjacent batch.
            is_known = len(set(case.lengths)) == 1
            for mine, theirs in zip(found, expected, strict=True):
                assert_same([mine], [theirs], knows_shape=is_known)
            return
        like = expected or [self._rows(case, case.lengths[0], slice(0))]
        assert_same(found, like, knows_shape=_knows_shape(case))

    def _rows(self, case: Case, lengths: tuple[int, int], rows: slice) -> Any:
        outputs = self.expected(case.deployment.graph, lengths)
        return tf.nest.map_structure(lambda leaf: leaf[rows], outputs)

    def _found(self, case: Case, batches: list[list[np.ndarray]]) -> list[Any]:
        predictor = self.predictor(case.deployment)
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            x = hand_over(case.deployment, case.source, case.element, batches, folder)
            if case.results not in SUFFIXES:
                return METHODS[case.results](predictor, x, case.batch_size)
            like = self._rows(case, case.lengths[0], slice(0))
            path = folder / f"output{case.results}"
            return predict_to(predictor, x, case.batch_size, path, like)


def _place(
    deployment: Deployment, plain: keras.Model, path: pathlib.Path
) -> mgpu.Predictor:
    engine = deployment.engine
    if deployment.origin == "loaded":
        return mgpu.load(path, engine=engine)
    in_scope = deployment.origin == "in scope"
    model = build(deployment.graph) if in_scope else plain
    return mgpu.Predictor(model, engine=engine)


def _knows_shape(case: Case) -> bool:
    """Whether an input reveals all lengths; one without rows may not."""
    is_read = bool(case.batches) and case.source != "dataset"
    return case.num_rows > 0 or case.source in ARRAYS or is_read


def _places(case: Case) -> list[tuple[int, int]]:
    """First row and number of rows of each batch."""
    starts = itertools.accumulate(case.batches, initial=0)
    return list(zip(starts, case.batches, strict=False))


def _rows_in(case: Case, lengths: tuple[int, int], rows: slice) -> list[np.ndarray]:
    everything = arrays(case.deployment.graph, lengths, MOST_ROWS)
    return [array[rows] for array in everything]


def assert_same(found: list[Any], expected: list[Any], *, knows_shape: bool) -> None:
    """Checks that the rows of some nests are those of others, in order.

    Args:
        found: Nests of arrays or ragged tensors.
        expected: Nests of arrays.
        knows_shape: Whether results without any row must have the shape of a row.
    """
    for part in found:
        tf.nest.assert_same_structure(part, expected[0])
    columns = [
        zip(*map(tf.nest.flatten, nests), strict=True) for nests in (found, expected)
    ]
    for mine, theirs in zip(*columns, strict=True):
        for part in mine:
            assert part.dtype == theirs[0].dtype, (part.dtype, theirs[0].dtype)
        _assert_same_rows(_rows_of(mine), _rows_of(theirs), knows_shape=knows_shape)


def _rows_of(parts: tuple[Any, ...]) -> list[np.ndarray]:
    """Blocks of rows of one shape: all rows if possible."""
    blocks = [block for part in parts for block in _blocks(part)]
    blocks = [block for block in blocks if len(block)] or blocks[:1]
    if len({block.shape[1:] for block in blocks}) == 1:
        return [np.concatenate(blocks)]
    return [row[np.newaxis] for block in blocks for row in block]


def _blocks(part: Any) -> list[np.ndarray]:
    if not isinstance(part, tf.RaggedTensor):
        return [part]
    rows: list[Any] = [part[index] for index in range(part.nrows())]
    dense = [r.to_tensor() if isinstance(r, tf.RaggedTensor) else r for r in rows]
    return [row.numpy()[np.newaxis] for row in dense]


def _assert_same_rows(
    mine: list[np.ndarray], theirs: list[np.ndarray], *, knows_shape: bool
) -> None:
    assert len(mine) == len(theirs)
    for found, expected in zip(mine, theirs, strict=True):
        assert isinstance(found, np.ndarray)
        assert found.ndim == expected.ndim
        assert len(found) == len(expected)
        if not knows_shape and not len(expected):
            continue
        assert found.shape == expected.shape, (found.shape, expected.shape)
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(found, expected)
