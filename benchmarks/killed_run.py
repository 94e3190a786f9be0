"""A run that writes a file, slowly, in a process that may be killed at any moment.

TensorFlow is imported in functions: the process that starts runs does not need it.
"""

import dataclasses
import pathlib
import time
from collections.abc import Iterator
from typing import Any

BATCH = 16
"""Per replica."""
USER_BATCH = 60
SECONDS_PER_ROW = 2e-4
SECONDS_BETWEEN_FLUSHES = 0.03


@dataclasses.dataclass(frozen=True)
class Run:
    """A run in a child process.

    Args:
        path: The output.
        replicas: Number of replicas.
        num_rows: Number of rows of the input.
        is_known: Whether this number is known beforehand.
    """

    path: pathlib.Path
    replicas: int
    num_rows: int
    is_known: bool

    @property
    def journal(self) -> pathlib.Path:
        """The journal next to the output."""
        return self.path.with_name(f"{self.path.name}.journal")

    @property
    def is_complete(self) -> bool:
        """Whether the output has its name, and nothing is left to do."""
        return self.path.exists() and not self.journal.exists()


class SlowRows:
    """An array that is slow to read, as from a disk or a network."""

    def __init__(self, x: Any):
        self._x = x
        self.shape, self.dtype = x.shape, x.dtype

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._x)

    def __getitem__(self, key: Any) -> Any:
        """Some of the rows."""
        part = self._x[key]
        time.sleep(SECONDS_PER_ROW * len(part))
        return part


def child(run: Run, begun: Any) -> None:
    """Begins or resumes a run, in a new process."""
    import tensorflow as tf

    import keras_mgpu_strategy as mgpu

    make_small()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    with mgpu.scope("cpu", replicas_per_device=run.replicas):
        predictor = mgpu.Predictor(make_model())
    begun.set()
    predictor.predict_to(
        run.path, make_input(run), BATCH * run.replicas, verbose=0, resume=True
    )


def make_small() -> None:
    """Makes a run of one second have many flushes, parts and chunks."""
    from keras_mgpu_strategy.compute import sizes as batch_size
    from keras_mgpu_strategy.formats import registry
    from keras_mgpu_strategy.formats.parquet.write import ParquetFormat
    from keras_mgpu_strategy.formats.zarr.write import ZarrFormat
    from keras_mgpu_strategy.runs import file_writer

    file_writer._SECONDS_BETWEEN_FLUSHES = SECONDS_BETWEEN_FLUSHES
    batch_size._MOST_MICRO_BATCHES = 2
    registry.WRITERS[".parquet"] = ParquetFormat(part_bytes=2**15)
    registry.WRITERS[".zarr"] = ZarrFormat(chunk_bytes=2**14)


def make_model() -> Any:
    """A small classifier of two outputs with known weights."""
    import keras
    import numpy as np

    inputs = keras.Input((4,))
    outputs = {
        "scores": keras.layers.Dense(10, "softmax")(inputs),
        "chance": keras.layers.Dense(1, "sigmoid")(inputs),
    }
    model = keras.Model(inputs, outputs)
    rng = np.random.default_rng(7)
    model.set_weights([rng.standard_normal(w.shape) for w in model.get_weights()])
    return model


def make_input(run: Run) -> Any:
    """An array, or a generator of its rows in batches."""
    import numpy as np

    x = np.random.default_rng(1).standard_normal((run.num_rows, 4), np.float32)
    slow = SlowRows(x)
    return slow if run.is_known else in_batches(slow)


def in_batches(slow: SlowRows) -> Iterator[Any]:
    """Batches that are not multiples of the per-replica batch."""
    for start in range(0, len(slow), USER_BATCH):
        yield slow[start : start + USER_BATCH]
