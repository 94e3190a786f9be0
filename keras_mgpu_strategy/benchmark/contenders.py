"""Contender names -> what predicts."""

import contextlib
import functools
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.benchmark import runtimes
from keras_mgpu_strategy.benchmark.options import RUNTIMES, STEPS
from keras_mgpu_strategy.types import Nest

_MANY_ROWS = 10**9
_SECONDS_TO_CHOOSE = (3, 6, 12)  # again, in case that compiling took the first seconds


class InTurn:
    """Models of Keras that predict one after another, and their mean."""

    def __init__(self, models: Iterable[Any]):
        self.models = list(models)

    def predict(self, x: Nest, **how: Any) -> Nest:
        """The mean of what they predict; of one, what it predicts."""

        def mean(*leaves: np.ndarray) -> np.ndarray:
            return functools.reduce(np.add, leaves) / len(leaves)

        first, *others = [model.predict(x, **how) for model in self.models]
        return tf.nest.map_structure(mean, first, *others) if others else first


def made(
    name: str, plain: InTurn, mirrored: InTurn, num_replicas: int, batch: int | None
) -> Any:
    """What predicts, not yet compiled; `mirrored` models are under a strategy."""
    match name:
        case "keras":
            for model in plain.models:  # to time how long it takes
                model.make_predict_function(force=True)
            return plain
        case "keras_strategy":
            return mirrored
        case "ray":  # a process on a CPU has one thread, as a replica has here
            ray = mgpu.RayOptions(num_replicas, cpus_per_actor=1)
            return mgpu.Predictor(plain.models, engine="ray", ray=ray)
    if name in RUNTIMES:
        return InTurn(
            runtimes.InRuntime(model, name, batch, num_replicas)
            for model in plain.models
        )
    kind: Any = name.removeprefix("mgpu_")
    how: Any = {"compile" if name in STEPS else "engine": kind}
    return mgpu.Predictor(mirrored.models, **how)


def settle(
    predictor: mgpu.Predictor, x: Nest, batch_size: int | None
) -> dict[str, float | str]:
    """Has the beginning of a long run choose a step for later ones; what was tried."""
    # The first row, so often that any run is a long one; takes no memory.
    rows = tf.nest.map_structure(
        lambda leaf: np.broadcast_to(leaf[:1], (_MANY_ROWS, *leaf.shape[1:])), x
    )
    tried: dict[str, float | str] = {}
    for seconds in _SECONDS_TO_CHOOSE:
        until = time.perf_counter() + seconds
        batches: Any = predictor.predict_iter(rows, batch_size)
        with contextlib.closing(batches):
            next((True for _ in batches if time.perf_counter() > until), None)
        if predictor.report and (tried := predictor.report.tried_steps):
            break
    return tried
