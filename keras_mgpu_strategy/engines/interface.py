"""The interfaces between a run, what runs chunks, and where the model lives."""

from collections.abc import Sequence
from typing import Any, Protocol

import tensorflow as tf

from keras_mgpu_strategy.compute.heads import Head
from keras_mgpu_strategy.compute.signatures import StepKind
from keras_mgpu_strategy.engines.adaptive_batch import BatchSize
from keras_mgpu_strategy.engines.context import Context
from keras_mgpu_strategy.engines.options import Options
from keras_mgpu_strategy.engines.running import Engine
from keras_mgpu_strategy.engines.track import Track
from keras_mgpu_strategy.models import Criteria, PaddedOutputs, Preprocessing
from keras_mgpu_strategy.types import Feeding, HostBatch, InputBatch, Nest


class StoppedWithin(Exception):
    """A chunk could only be run up to a row within it, for which `error` is raised."""

    def __init__(self, results: HostBatch, error: Exception):
        super().__init__(results.stop)
        self.results = results
        self.error = error


class ChunkRunner(Protocol):
    """Runs one chunk at a time on one replica; called by several threads."""

    def begin_run(self) -> None:
        """Called once, before the first chunk of a run."""
        ...

    def num_ops(self) -> int:
        """How many ops a step has, of which one has run; 0 if unknown."""
        ...

    def run(
        self, chunk: InputBatch, batch: BatchSize, replica: int, track: Track
    ) -> HostBatch:
        """Returns the results of a chunk; shrinks the batch if memory runs out.

        Raises:
            StoppedWithin: Any row of the chunk except the first failed.
        """
        ...


class Backend(Protocol):
    """Where a model lives, and how to run it there.

    Attributes:
        input_spec: Nest of named `tf.TensorSpec` that the model declares; None if none.
        feeding: What the model is given of the user's input.
        is_remote: Whether replicas read files themselves, in other processes.
        options: How it runs; `combine` is None only for one model without views.
        called: The names by which Keras calls the outputs; None if it has none.
        output_shapes: Nest of `tf.TensorShape` that the model declares; None if none.
        hardware: What the devices are, each replica's.
    """

    input_spec: Nest | None
    feeding: Feeding
    is_remote: bool
    options: Options
    called: tuple[str, ...] | None
    output_shapes: Nest | None
    hardware: list[str]

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

    @property
    def choices(self) -> tuple[StepKind, ...]:
        """How steps may be compiled; a run begins with the first if none is known."""
        ...

    @property
    def floats(self) -> tf.DType:
        """The dtype of floats for a model that declares no inputs."""
        ...

    def preprocessing(self, raw_spec: Nest) -> Preprocessing | None:
        """What is done in this process to rows of that spec before they are run.

        None if nothing is done, or other processes do it.

        Raises:
            ValueError: Preprocessing fails on such rows.
        """
        ...

    def build(self, example: Nest) -> None:
        """Creates the variables of a model that has none yet, from example rows."""
        ...

    def engine(self, context: Context) -> Engine:
        """What runs the rows."""
        ...

    def criteria(self, spec: Nest) -> Criteria:
        """What `evaluate` computes from the outputs for rows of a spec.

        Raises:
            ValueError: It depends on more than outputs and labels.
        """
        ...

    def try_padded(
        self,
        head: Head,
        spec: Nest,
        padded: Nest,
        lengths: Sequence[int],
        *,
        side: str,
        unmasked: bool,
    ) -> PaddedOutputs:
        """Runs rows alone and padded, to see which results vary with their length.

        The model has been built. `padded` are rows of the longest length, the first of
        which have `lengths` and are also run without padding; axis 1 of `spec` is None
        where rows vary. What is found is kept.

        Raises:
            ValueError: Results depend on padding and are not `unmasked`, or it is not
                known which tokens belong to a row.
        """
        ...

    def describe(self) -> str:
        """Models, devices and options in one line, for a person."""
        ...

    def digest(self) -> str:
        """A short hash of what the model computes."""
        ...
