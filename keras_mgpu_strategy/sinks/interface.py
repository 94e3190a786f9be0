"""The one interface that every sink has.

A sink takes results in the order of their rows and knows neither model nor device.
"""

from typing import Protocol

from keras_mgpu_strategy.types import HostBatch


class Sink(Protocol):
    """Where results go.

    Guarantees that every sink gives:

    * Rows `0 .. num_written` are stored, in order, exactly as handed over.
    * `write` copies what it keeps: the caller's arrays may be views.
    """

    @property
    def num_written(self) -> int:
        """Number of rows stored so far."""
        ...

    def write(self, batch: HostBatch) -> None:
        """Stores a batch, which must begin at row `num_written`."""
        ...

    def close(self) -> None:
        """Ends writing; calling it twice is harmless."""
        ...
