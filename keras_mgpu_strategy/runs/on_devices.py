"""A model on its devices, and what can be asked about it."""

import os
from typing import Any

from keras_mgpu_strategy.engines.interface import Backend
from keras_mgpu_strategy.report import Report
from keras_mgpu_strategy.runs.preparing import Runner
from keras_mgpu_strategy.system.fork_guard import StaysHere


class OnDevices(StaysHere):
    """A model that lives on every device.

    Args:
        backend: Where it lives.
        profile: Folder for traces of runs, or None.
    """

    def __init__(self, backend: Backend, profile: str | os.PathLike[str] | None):
        self._runner = Runner(backend, profile)

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
        return len(self._runner.backend.devices)

    @property
    def report(self) -> Report | None:
        """Report of the run that ended last, in any thread; None before the first."""
        return self._runner.report
