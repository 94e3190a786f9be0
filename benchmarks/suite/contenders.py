"""Contender names -> how they are made."""

import time
from collections.abc import Callable
from typing import Any

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.benchmark.measure import report_of
from keras_mgpu_strategy.types import Nest
from suite.bare import Limit, StrategyRun
from suite.interface import Contender, Setting
from suite.processes import Processes
from suite.towers import MakeParallel


class Predicting(Contender):
    """`predict` of a Keras model or of a Predictor, as a user would call it."""

    def __init__(self, model: Any, batch_size: int | None):
        self._model = model
        self._batch_size = batch_size

    def predict(self, x: Nest) -> Nest:
        """Runs all rows."""
        return self._model.predict(x, batch_size=self._batch_size, verbose=0)

    def report(self) -> dict[str, Any] | None:
        """A Predictor's own report of the last run."""
        return report_of(self._model)

    def close(self) -> None:
        """Ends a Predictor's processes."""
        self._model = None


def _ours(setting: Setting, engine: Any) -> Contender:
    predictor = mgpu.Predictor(setting.mirrored, engine=engine)
    return Predicting(predictor, setting.global_batch)


def _our_make_parallel(setting: Setting) -> Contender:
    model = mgpu.make_parallel(setting.plain, devices=setting.devices)
    return Predicting(model, setting.global_batch)


def _ray(setting: Setting) -> Contender:
    """A process for each replica; on a CPU with one thread, like the other replicas."""
    started = time.perf_counter()
    ray = mgpu.RayOptions(setting.num_replicas, cpus_per_actor=1)
    predictor = mgpu.Predictor(setting.plain, engine="ray", ray=ray)
    contender = Predicting(predictor, setting.global_batch)
    contender.start_up_seconds = time.perf_counter() - started
    return contender


CONTENDERS: dict[str, Callable[[Setting], Contender]] = {
    "keras": lambda setting: Predicting(setting.plain, setting.batch_size),
    "keras_strategy": lambda setting: Predicting(
        setting.mirrored, setting.global_batch
    ),
    "make_parallel": MakeParallel,
    "processes": Processes,
    "mgpu_threads": lambda setting: _ours(setting, "threads"),
    "mgpu_mirrored": lambda setting: _ours(setting, "mirrored"),
    "mgpu_make_parallel": _our_make_parallel,
    "ray": _ray,
    "strategy_run": StrategyRun,
    "limit": Limit,
}
