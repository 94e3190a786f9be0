"""The interfaces between an engine and the place where a model lives."""

from typing import Any, Protocol

import tensorflow as tf

from keras_mgpu_strategy.engines.adaptive_batch import BatchSize
from keras_mgpu_strategy.engines.context import Work
from keras_mgpu_strategy.engines.feed import Chunk
from keras_mgpu_strategy.engines.interface import Engine
from keras_mgpu_strategy.engines.track import Track
from keras_mgpu_strategy.models import Preprocessing
from keras_mgpu_strategy.sources.marks import MarksOf
from keras_mgpu_strategy.types import Feeding, HostBatch, Nest, Source


class StoppedWithin(Exception):
    """A chunk could only be run up to a row within it.

    Args:
        results: The results of the rows before it.
        error: What is wrong with that row.
    """

    def __init__(self, results: HostBatch, error: Exception):
        super().__init__(results.stop)
        self.results = results
        self.error = error


class ChunkRunner(Protocol):
    """Runs one chunk at a time on one replica; called by several threads."""

    def begin_run(self) -> None:
        """Called once, before the first chunk of a run."""
        ...

    def run(
        self,
        chunk: Chunk,
        batch: BatchSize,
        replica: int,
        track: Track,
    ) -> HostBatch:
        """Returns the results of a chunk.

        Args:
            chunk: The rows.
            batch: The per-replica batch, shrunk if memory runs out.
            replica: Index of the replica.
            track: What the replica's device does.

        Raises:
            StoppedWithin: Any row of the chunk except the first failed.
        """
        ...


class Backend(Protocol):
    """Where a model lives, and how to run it there."""

    @property
    def input_spec(self) -> Nest | None:
        """Nest of named `tf.TensorSpec` that the model declares; None if none."""
        ...

    @property
    def floats(self) -> tf.DType:
        """The dtype of floats for a model that declares no inputs."""
        ...

    @property
    def feeding(self) -> Feeding:
        """What the model is given of the user's input."""
        ...

    def preprocessing(self, raw_spec: Nest) -> Preprocessing | None:
        """What is done in this process to such rows before they are run.

        Args:
            raw_spec: Nest of `tf.TensorSpec` of the rows as the user gives them.

        Returns:
            None if nothing is done, or other processes do it.

        Raises:
            ValueError: Preprocessing fails on such rows.
        """
        ...

    @property
    def model(self) -> Any:
        """The model whose variables live on every device."""
        ...

    @property
    def strategy(self) -> Any:
        """The `tf.distribute.Strategy` over the devices."""
        ...

    @property
    def devices(self) -> tuple[str, ...]:
        """Name of each replica's device."""
        ...

    def build(self, example: Nest) -> None:
        """Creates the variables of a model that has none yet, from example rows."""
        ...

    def engine(self, work: Work) -> Engine:
        """What runs a job."""
        ...

    def digest(self) -> str:
        """A short hash of what the model computes."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether replicas read files themselves, in other processes."""
        ...

    def marks(self, source: Source, work: Work) -> MarksOf:
        """How to ask for the marks of rows that a job has run."""
        ...
