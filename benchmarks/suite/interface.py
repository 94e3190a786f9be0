"""What all contenders of a run share, and the interface of each."""

import abc
import dataclasses
from typing import Any

import numpy as np

from keras_mgpu_strategy.benchmark.measure import num_rows
from keras_mgpu_strategy.types import Nest


@dataclasses.dataclass(frozen=True)
class Setting:
    """The models, devices and batch that all contenders of a run share.

    Args:
        plain: The model on one device, outside any strategy.
        mirrored: The same model with the same weights, built under `strategy`.
        strategy: One replica on each device.
        batch_size: Per-replica batch; None for each side's default arguments.
        example: A nest of at least one global batch of rows, for contenders that
            keep their input on the devices.
    """

    plain: Any
    mirrored: Any
    strategy: Any
    batch_size: int | None
    example: Nest

    @property
    def devices(self) -> tuple[str, ...]:
        """The full name of each replica's device."""
        return tuple(self.strategy.extended.worker_devices)

    @property
    def num_replicas(self) -> int:
        """Number of replicas."""
        return self.strategy.num_replicas_in_sync

    @property
    def global_batch(self) -> int | None:
        """Rows of a global batch; None for the default."""
        return None if self.batch_size is None else self.batch_size * self.num_replicas

    @property
    def step_rows(self) -> int:
        """Rows of one replica in one step of a bare loop."""
        if self.batch_size is not None:
            return self.batch_size
        return max(num_rows(self.example) // self.num_replicas, 1)


class Contender(abc.ABC):
    """One way to predict.

    `start_up_seconds` is the time to get ready if that is more than compiling, such as
    starting processes and loading models.
    """

    start_up_seconds: float | None = None

    @abc.abstractmethod
    def predict(self, x: Nest) -> Nest | None:
        """Runs all rows; returns their results, or None if it keeps none."""

    def rows_run(self, num_rows: int) -> int:
        """Rows that count for the speed when `num_rows` are requested."""
        return num_rows

    def kept(self, num_rows: int) -> np.ndarray:
        """Indices of the rows whose results are returned, in order."""
        return np.arange(num_rows)

    def report(self) -> dict[str, Any] | None:
        """A JSON record of where the time of the last run went, if known."""
        return None

    def close(self) -> None:  # noqa: B027 - most have nothing to give back
        """Releases what is held outside this process."""
