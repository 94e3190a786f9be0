"""The record next to an output that is being written: what it is, and its progress.

A text file: a line for what the output is, then a line each time that rows were put on
disk, and a last one when the output is complete. Each begins with the CRC-32 of the
rest of the line, which is JSON.

Guarantees:

* A journal appears whole, before the first row is written, and then only grows.
* It is read strictly: a line that is not as it was written is an error, even if its
  CRC-32, which anyone can compute, is right. Only after the last whole line may there
  be part of one, as a kill leaves it; that is dropped.
* The output names in it lead to no other folder.
"""

import dataclasses
import json
import operator
import pathlib
import re
import zlib
from typing import Any

from keras_mgpu_strategy.outputs.column_names import check_described
from keras_mgpu_strategy.outputs.durable import (
    Appender,
    file_size,
)
from keras_mgpu_strategy.outputs.lock import Lock
from keras_mgpu_strategy.outputs.strict_json import has_keys, is_count, parse

_VERSION, _OLD = 2, 1
_MOST_BYTES = 1 << 30
_ABOUT = {"run", "layout"}
_PROGRESS = {"rows", "start", "batch_size", "mark", "finished", "content"}
_MARKS = {"rows", "bytes", "state"}
_CONTENT = re.compile(r"sha256 [0-9a-f]{32}")
_LARGEST_BATCH = 2**31


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far an output is.

    Args:
        rows: Index one past the last row that is safely on disk.
        start: Index of the last row up to there that began a batch of the model, where
            a resumed run must begin for rows to have the same places in batches.
        batch_size: Per-replica batch that was used last.
        mark: What `FileFormat.reopen` needs; for a complete output, `state`, which
            distinguishes its files from others.
        finished: Whether the output is complete.
        content: Identifies what is in the input's files; None if unknown.
    """

    rows: int
    start: int
    batch_size: int
    mark: dict[str, int]
    finished: bool = False
    content: str | None = None


class Journal:
    """A journal that is being written.

    Args:
        path: The file.
        about: What the output is: `run`, a dict of what must be the same for it to be
            resumed, and `layout`, as in `column_names.py`.
        progress: Its progress; None before the first flush.
        num_bytes: Length of the file.
        is_old: Whether an older version of this package wrote it.
    """

    def __init__(
        self,
        path: pathlib.Path,
        about: dict[str, Any],
        progress: Progress | None,
        num_bytes: int,
        is_old: bool = False,
    ):
        self.path = path
        self.about = about
        self.progress = progress
        self.is_old = is_old
        self._end = num_bytes
        self._file: Appender | None = None

    def add(self, progress: Progress) -> None:
        """Records, safely on disk, how far the output is."""
        if self._file is None:
            self._file = Appender(self.path, self._end)
        line = _line(dataclasses.asdict(progress))
        end = self._file.put(line, self._end)
        # An earlier try that failed may have left bytes after a shorter line.
        self._file.end_at(end)
        self._file.sync()
        self._end, self.progress = end, progress

    def close(self) -> None:
        """Closes the file; calling it twice is harmless."""
        if self._file is not None:
            self._file.close()


def create(
    path: pathlib.Path, about: dict[str, Any], lock: Lock | None = None
) -> Journal:
    """Begins a journal, replacing what may be there.

    Args:
        path: The file.
        about: As for `Journal`.
        lock: Has claimed the file's place; holds the journal from then on.
    """
    line = _line({"journal": _VERSION, "about": about})
    (lock or Lock(path)).put(line)
    return Journal(path, about, None, len(line))


def read(path: pathlib.Path) -> Journal:
    """Reads a journal, to resume it.

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
    about, progress = _about(path, records[0]), None
    is_old = records[0]["journal"] == _OLD
    for number, record in enumerate(records[1:], start=2):
        record = {"content": None, **record} if is_old else record
        progress = _progress(path, number, record, progress)
    return Journal(path, about, progress, len(whole) + 1, is_old)


def content_of(about: dict[str, Any], progress: Progress) -> bytes:
    """Returns a journal of one line of progress."""
    first = _line({"journal": _VERSION, "about": about})
    return first + _line(dataclasses.asdict(progress))


def _line(record: dict[str, Any]) -> bytes:
    # The default is for NumPy integers, which JSON does not support.
    text = json.dumps(record, sort_keys=True, allow_nan=False, default=operator.index)
    return _with_crc(text.encode())


def _with_crc(text: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _record(path: pathlib.Path, number: int, line: bytes) -> dict[str, Any]:
    crc, _, text = line.partition(b" ")
    if crc != b"%08x" % zlib.crc32(text):
        raise _damaged(path, number)
    try:
        record = parse(text)
    except ValueError as error:
        raise _damaged(path, number, str(error)) from None
    if not isinstance(record, dict):
        raise _damaged(path, number)
    return record


def _about(path: pathlib.Path, record: dict[str, Any]) -> dict[str, Any]:
    about = record.get("about")
    version = record.get("journal")
    is_known = type(version) is int and version in (_OLD, _VERSION)
    if not is_known or not isinstance(about, dict):
        raise ValueError(
            f"{path} is no journal of version {_OLD} or {_VERSION}, so it was written "
            "by a newer version of this package or is another file. Remove it to begin "
            "again."
        )
    if not has_keys(record, {"journal", "about"}) or not has_keys(about, _ABOUT):
        raise _damaged(path, 1)
    if not isinstance(about["run"], dict):
        raise _damaged(path, 1)
    try:
        check_described(about["layout"])
    except ValueError as error:
        raise _damaged(path, 1, str(error)) from None
    return about


def _progress(
    path: pathlib.Path, number: int, record: dict[str, Any], before: Progress | None
) -> Progress:
    if not has_keys(record, _PROGRESS) or not isinstance(record["mark"], dict):
        raise _damaged(path, number)
    progress = Progress(**record)
    if not _is_possible(progress) or not _follows(progress, before):
        raise _damaged(path, number)
    return progress


def _is_possible(progress: Progress) -> bool:
    sizes = [progress.rows, progress.start, progress.batch_size]
    mark = progress.mark
    if not all(map(is_count, [*sizes, *mark.values()])) or not mark.keys() <= _MARKS:
        return False
    if type(progress.finished) is not bool or progress.batch_size > _LARGEST_BATCH:
        return False
    content = progress.content
    if content is not None and not _CONTENT.fullmatch(str(content)):
        return False
    # A finished output has no mark to reopen it with.
    is_closed = progress.finished and mark.keys() <= {"state"}
    is_marked = is_closed or mark.get("rows") == progress.rows
    return is_marked and progress.start <= progress.rows


def _follows(progress: Progress, before: Progress | None) -> bool:
    """Whether a line can follow another: rows are never taken back."""
    return before is None or (before.rows <= progress.rows and not before.finished)


def _damaged(path: pathlib.Path, number: int, why: str = "") -> ValueError:
    because = f" ({why})" if why else ""
    return ValueError(
        f"The journal {path} is damaged in line {number}{because}, so how far its "
        "output is cannot be known. Nothing was touched. Pass overwrite=True to begin "
        "again."
    )
