"""What a Predictor says of the model that it has on every device."""

import os
from typing import Any

from keras_mgpu_strategy.engines.interface import Backend
from keras_mgpu_strategy.report import Report
from keras_mgpu_strategy.runs.run import Runner
from keras_mgpu_strategy.runs.tuning import TuningFile
from keras_mgpu_strategy.system.fork_guard import StaysHere


class OnDevices(StaysHere):
    """A model that lives on every device, and the report of its last run."""

    def __init__(
        self,
        backend: Backend,
        profile: str | os.PathLike[str] | None,
        tuning: TuningFile | None = None,
    ):
        self._runner = Runner(backend, profile, tuning)

    @property
    def model(self) -> Any:
        """The model whose variables live on every device; `fit` and `evaluate` work."""
        return self._runner.backend.model

    @property
    def strategy(self) -> Any:
        """The `tf.distribute.Strategy` over the devices."""
        return self._runner.backend.strategy

    @property
    def devices(self) -> tuple[str, ...]:
        """Full name of each replica's device."""
        return self._runner.backend.devices

    @property
    def num_replicas(self) -> int:
        """How many replicas there are."""
        return self._runner.num_replicas

    @property
    def report(self) -> Report | None:
        """Report of the run that ended last, in any thread; None before the first."""
        return self._runner.report
