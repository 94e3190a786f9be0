"""Rows of a Parquet part that is not complete yet, kept safe until it is.

A file of frames, each the length (8 bytes, little-endian) and the bytes of one Arrow
record batch. The file's end may be torn: it is read only up to the requested rows.
"""

import pathlib
from collections.abc import Iterator
from typing import Any

from keras_mgpu_strategy.outputs.durable import (
    Appender,
    remove,
    scratch_of,
    write_whole,
)

_LENGTH_BYTES = 8


class Spool:
    """The spool of one sink.

    Args:
        path: Where it is while there are such rows.
    """

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._file: Appender | None = None
        self._end = 0

    def add(self, table: Any) -> None:
        """Puts rows safely on disk, after those that are there."""
        if self._file is None:
            self._file = Appender(self._path)
            self._end = 0
        end = self._file.put(_frame(table), self._end)
        self._file.sync()
        self._end = end

    def restart(self, table: Any) -> None:
        """Replaces whatever it holds with the rows of `table`, atomically."""
        self.close()
        frame = _frame(table)
        write_whole(self._path, frame)
        self._file, self._end = Appender(self._path, len(frame)), len(frame)

    def clear(self) -> None:
        """Holds no rows, and leaves no file."""
        self.close()
        remove(self._path)
        remove(scratch_of(self._path))

    def close(self) -> None:
        """Closes the file; calling it twice is harmless."""
        if self._file is not None:
            self._file.close()
            self._file = None


def read_spool(path: pathlib.Path, schema: Any, num_rows: int) -> Any:
    """Reads the first rows of a spool.

    Returns:
        A table of `num_rows` rows, or of fewer if there are fewer whole ones.
    """
    import pyarrow as pa

    batches, missing = [], num_rows
    for batch in _batches(path, schema):
        batches.append(batch)
        missing -= batch.num_rows
        if missing <= 0:
            break
    return pa.Table.from_batches(batches, schema).slice(0, num_rows).combine_chunks()


def _frame(table: Any) -> bytes:
    (batch,) = table.combine_chunks().to_batches()
    content = batch.serialize().to_pybytes()
    return len(content).to_bytes(_LENGTH_BYTES, "little") + content


def _batches(path: pathlib.Path, schema: Any) -> Iterator[Any]:
    import pyarrow as pa

    if not path.is_file():
        return
    with open(path, "rb") as file:
        while len(length := file.read(_LENGTH_BYTES)) == _LENGTH_BYTES:
            num_bytes = int.from_bytes(length, "little")
            if num_bytes > path.stat().st_size:
                return
            content = file.read(num_bytes)
            try:
                yield pa.ipc.read_record_batch(pa.py_buffer(content), schema)
            except (OSError, pa.ArrowInvalid):
                return
