"""The one interface that every engine implements.

An engine knows the model and the devices; it is given rows and returns rows.
It knows neither where rows come from nor where results go.
"""

from collections.abc import Iterator
from typing import Protocol

from keras_mgpu_strategy.types import HostBatch, Source


class Engine(Protocol):
    """Runs a model over the rows of a source on every replica.

    Guarantees of every engine:

    * Each row from `start` onwards is in exactly one of the batches yielded, and the
      batches come in the order of their rows.
    * No replica calls the model on 0 rows. Every call has `batch_size` rows; the
      last one is padded and its results are trimmed.
    * When the iterator is closed or fails, no thread is left behind.
    """

    def run(
        self, source: Source, batch_size: int, start: int = 0
    ) -> Iterator[HostBatch]:
        """Yields results in input order.

        Args:
            source: The rows.
            batch_size: Rows of one call of the model on one replica (the
                per-replica batch).
            start: Index of the first row to run.
        """
        ...
