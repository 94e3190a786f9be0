"""The record beside an output that is being written: what it is, and how far it is.

A text file: a line for what the output is, then a line for each time that rows were
put on disk, and a last one when the output is complete. Each begins with the CRC-32
of the rest of the line, which is JSON.

Guarantees:

* A journal appears whole, before the first row is written, and then only grows.
* It is read strictly: a line that is not as it was written is an error. Only behind
  the last whole line may there be a part of one, as a kill leaves it; that is dropped.
"""

import dataclasses
import json
import operator
import pathlib
import zlib
from typing import Any

from keras_mgpu_strategy.sinks.durable import (
    Appender,
    file_size,
    sync_folder,
    write_whole,
)

_VERSION = 1
_MOST_BYTES = 1 << 30


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far an output is.

    Args:
        rows: Index behind the last row that is safely on disk.
        start: Index of the last row up to there that began a batch of the model, where
            a run that goes on must begin for rows to have the same places in batches.
        batch_size: Per-replica batch that was used last.
        mark: What `FileFormat.reopen` needs; empty before the first flush.
        finished: Whether the output is complete.
    """

    rows: int
    start: int
    batch_size: int
    mark: dict[str, int]
    finished: bool = False


class Journal:
    """A journal that is being written.

    Args:
        path: The file.
        about: What the output is: nests of dicts, lists, strings and numbers.
        progress: How far it is; None before the first flush.
        num_bytes: Length of the file.
    """

    def __init__(
        self,
        path: pathlib.Path,
        about: dict[str, Any],
        progress: Progress | None,
        num_bytes: int,
    ):
        self.path = path
        self.about = about
        self.progress = progress
        self._end = num_bytes
        self._file: Appender | None = None

    def add(self, progress: Progress) -> None:
        """Notes, safely on disk, how far the output is."""
        if self._file is None:
            self._file = Appender(self.path, self._end)
        line = _line(dataclasses.asdict(progress))
        end = self._file.put(line, self._end)
        # What an earlier try that failed may have left behind a shorter line.
        self._file.end_at(end)
        self._file.sync()
        self._end, self.progress = end, progress

    def close(self) -> None:
        """Closes the file; calling it twice is harmless."""
        if self._file is not None:
            self._file.close()

    def remove(self) -> None:
        """Removes the file: nothing is left to go on with."""
        self.close()
        self.path.unlink(missing_ok=True)
        sync_folder(self.path.parent)


def create(path: pathlib.Path, about: dict[str, Any]) -> Journal:
    """Begins a journal, in place of what may be there."""
    line = _line({"journal": _VERSION, "about": about})
    write_whole(path, line)
    return Journal(path, about, None, len(line))


def read(path: pathlib.Path) -> Journal:
    """Reads a journal, to go on with it.

    Raises:
        ValueError: It is damaged, or not a journal.
    """
    if file_size(path) > _MOST_BYTES:
        raise _damaged(path, 1)
    content = path.read_bytes()
    whole, _, _ = content.rpartition(b"\n")
    records = [
        _record(path, number, line)
        for number, line in enumerate(whole.split(b"\n"), start=1)
    ]
    about = _about(path, records[0])
    steps = [_progress(path, number, r) for number, r in enumerate(records[1:], 2)]
    return Journal(path, about, steps[-1] if steps else None, len(whole) + 1)


def _line(record: dict[str, Any]) -> bytes:
    # The default is for NumPy's integers, which JSON does not know.
    text = json.dumps(record, sort_keys=True, allow_nan=False, default=operator.index)
    return _with_crc(text.encode())


def _with_crc(text: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _record(path: pathlib.Path, number: int, line: bytes) -> dict[str, Any]:
    crc, _, text = line.partition(b" ")
    if crc != b"%08x" % zlib.crc32(text):
        raise _damaged(path, number)
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        raise _damaged(path, number) from None
    if not isinstance(record, dict):
        raise _damaged(path, number)
    return record


def _about(path: pathlib.Path, record: dict[str, Any]) -> dict[str, Any]:
    if record.get("journal") != _VERSION or not isinstance(record.get("about"), dict):
        raise ValueError(
            f"{path} is no journal of version {_VERSION}, so it was written by another "
            "version of this package or is another file. Remove it to begin again."
        )
    return record["about"]


def _progress(path: pathlib.Path, number: int, record: dict[str, Any]) -> Progress:
    try:
        progress = Progress(**record)
        sizes = (progress.start, progress.batch_size)
        numbers = (progress.rows, *sizes, *progress.mark.values())
    except (TypeError, AttributeError):
        raise _damaged(path, number) from None
    if not all(isinstance(value, int) and value >= 0 for value in numbers):
        raise _damaged(path, number)
    return progress


def _damaged(path: pathlib.Path, number: int) -> ValueError:
    return ValueError(
        f"The journal {path} is damaged in line {number}, so how far its output is "
        f"cannot be known. Nothing was touched. Pass overwrite=True to begin again."
    )
