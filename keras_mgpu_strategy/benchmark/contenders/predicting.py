"""Keras `predict` and ours, as a user would call them."""

import dataclasses
import time
from typing import Any

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.benchmark.contenders.interface import Contender, Setting
from keras_mgpu_strategy.engines.options import EngineName
from keras_mgpu_strategy.types import Nest


class KerasPredict(Contender):
    """Keras `predict` on one device, outside any strategy."""

    def __init__(self, setting: Setting):
        self._model = setting.plain
        self._batch_size = setting.batch_size

    def predict(self, x: Nest) -> Nest:
        """Runs all rows."""
        return self._model.predict(x, batch_size=self._batch_size, verbose=0)


class KerasStrategyPredict(KerasPredict):
    """Keras `predict` of the model that was built under the strategy."""

    def __init__(self, setting: Setting):
        self._model = setting.mirrored
        self._batch_size = setting.global_batch


class OurMakeParallel(KerasPredict):
    """Keras `predict` of what our own `make_parallel` returns."""

    def __init__(self, setting: Setting):
        self._model = mgpu.make_parallel(setting.plain, devices=setting.devices)
        self._batch_size = setting.global_batch


class OurPredict(Contender):
    """`Predictor.predict` over the model that was built under the strategy.

    Args:
        setting: The model and the batch.
        engine: As for the Predictor.
    """

    def __init__(self, setting: Setting, engine: EngineName):
        self.predictor: Any = mgpu.Predictor(setting.mirrored, engine=engine)
        self._batch_size = setting.global_batch

    def predict(self, x: Nest) -> Nest:
        """Runs all rows."""
        return self.predictor.predict(x, batch_size=self._batch_size, verbose=0)

    def report(self) -> dict[str, Any] | None:
        """The Predictor's own report of the last run."""
        report = self.predictor.report
        if report is None:
            return None
        return dataclasses.asdict(report) | {"bottleneck": report.bottleneck}


class RayPredict(OurPredict):
    """`Predictor.predict` over as many processes as there are replicas.

    A process on a CPU has one thread, as a replica has in this process. Starting Ray
    and the processes is not counted.
    """

    def __init__(self, setting: Setting):
        started = time.perf_counter()
        self.predictor = mgpu.Predictor(
            setting.plain,
            engine="ray",
            ray=mgpu.RayOptions(setting.num_replicas, cpus_per_actor=1),
        )
        self._batch_size = setting.global_batch
        self.start_up_seconds = time.perf_counter() - started

    def close(self) -> None:
        """Ends the processes."""
        self.predictor = None
