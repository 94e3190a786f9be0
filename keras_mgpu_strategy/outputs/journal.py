"""The record next to an output that is being written: what it is, and its progress.

Each line is JSON after its CRC-32: what the output is, then one each time that rows are
safely on disk. A journal appears whole before the first row, then only grows. It is
read strictly; only part of a last line, as a kill leaves it, is dropped.
"""

import contextlib
import dataclasses
import json
import operator
import pathlib
import re
import zlib
from collections.abc import Iterator
from typing import Any

from keras_mgpu_strategy.outputs.column_names import check_described
from keras_mgpu_strategy.outputs.durable import Appender, file_size
from keras_mgpu_strategy.outputs.lock import Lock
from keras_mgpu_strategy.outputs.metric_states import Record, check_record
from keras_mgpu_strategy.outputs.strict_json import has_keys, is_count, parse

_VERSION, _OLD = 2, 1
_MOST_BYTES = 1 << 30
_ABOUT = {"run", "layout"}
_PROGRESS = {"rows", "start", "batch_size", "mark", "finished", "content"}
_LATER = {"metrics", "step"}  # not in lines of earlier versions
_STEPS = ("plain", "frozen", "xla")
_MARKS = {"rows", "bytes", "state"}
_CONTENT = re.compile(r"sha256 [0-9a-f]{32}")
_LARGEST_BATCH = 2**31


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far an output is."""

    rows: int  # one past the last that is safely on disk
    start: int  # began the last batch up to there: a resumed run begins here
    batch_size: int  # per replica, used last
    mark: dict[str, int]  # for `FileFormat.reopen`; `state` if finished
    finished: bool = False
    content: str | None = None  # identifies the content of the input's files
    metrics: Record | None = None  # of rows before some that is at least `start`
    step: str | None = None  # how the rows to come are computed; None if not known


@dataclasses.dataclass(eq=False)
class Journal:
    """A journal being written; `about` is the `run`, which must match, and `layout`."""

    path: pathlib.Path
    about: dict[str, Any]
    progress: Progress | None
    _end: int  # of the lines that are whole
    is_old: bool = False
    _file: Appender | None = None

    def add(self, progress: Progress) -> None:
        """Records, safely on disk, how far the output is."""
        if self._file is None:
            self._file = Appender(self.path, self._end)
        end = self._file.put(_progress_line(progress), self._end)
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
    """Begins a journal in place of any other; `lock` has claimed it, and holds it."""
    line = _first_line(about)
    (lock or Lock(path)).put(line)
    return Journal(path, about, None, len(line))


def content_of(about: dict[str, Any], progress: Progress) -> bytes:
    """Returns a journal of one line of progress."""
    return _first_line(about) + _progress_line(progress)


def read(path: pathlib.Path) -> Journal:
    """Reads a journal, to resume it; a `ValueError` if it is damaged or not one."""
    size = file_size(path)
    with _in_line(path, 1):
        if size > _MOST_BYTES:
            raise ValueError
        whole, _, _ = path.read_bytes().rpartition(b"\n")
        first, *lines = whole.split(b"\n")
        record = _record(first)
    version = record.get("journal")
    is_known = type(version) is int and version in (_OLD, _VERSION)
    if not is_known or not isinstance(record.get("about"), dict):
        raise ValueError(
            f"{path} is not a journal of version {_OLD} or {_VERSION}, so it was "
            "written by a newer version of this package or is another file. Remove it "
            "to begin again."
        )
    with _in_line(path, 1):
        about = _about(record)
    progress, absent = None, {"content": None} if version == _OLD else {}
    for number, line in enumerate(lines, start=2):
        with _in_line(path, number):
            progress = _progress({**absent, **_record(line)}, progress)
    return Journal(path, about, progress, len(whole) + 1, version == _OLD)


def _first_line(about: dict[str, Any]) -> bytes:
    return _line({"journal": _VERSION, "about": about})


def _progress_line(progress: Progress) -> bytes:
    record = dataclasses.asdict(progress)
    for name in _LATER:  # lines without them are as in earlier versions
        if record[name] is None:
            del record[name]
    return _line(record)


def _line(record: dict[str, Any]) -> bytes:
    # The default is for NumPy integers, which JSON does not support.
    text = json.dumps(record, sort_keys=True, allow_nan=False, default=operator.index)
    return b"%08x %s\n" % (zlib.crc32(text.encode()), text.encode())


@contextlib.contextmanager
def _in_line(path: pathlib.Path, number: int) -> Iterator[None]:
    """Adds to an error in which line of a journal it is, and what to do."""
    try:
        yield
    except ValueError as error:
        because = f" ({error})" if str(error) else ""
        raise ValueError(
            f"The journal {path} is damaged in line {number}{because}, so how far its "
            "output is cannot be known. Nothing was touched. Pass overwrite=True to "
            "begin again."
        ) from None


def _record(line: bytes) -> dict[str, Any]:
    crc, _, text = line.partition(b" ")
    if crc != b"%08x" % zlib.crc32(text) or not isinstance(record := parse(text), dict):
        raise ValueError
    return record


def _about(record: dict[str, Any]) -> dict[str, Any]:
    about = record["about"]
    if not has_keys(record, {"journal", "about"}) or not has_keys(about, _ABOUT):
        raise ValueError
    if not isinstance(about["run"], dict):
        raise ValueError
    check_described(about["layout"])
    return about


def _progress(record: dict[str, Any], before: Progress | None) -> Progress:
    known = _PROGRESS | (_LATER & record.keys())
    if not has_keys(record, known) or not isinstance(record["mark"], dict):
        raise ValueError
    progress = Progress(**record)
    # Lines without metrics leave those of the lines before.
    if "metrics" not in record and before is not None:
        progress = dataclasses.replace(progress, metrics=before.metrics)
    rows, mark, content = progress.rows, progress.mark, progress.content
    sizes = [rows, progress.start, progress.batch_size, *mark.values()]
    is_possible = (
        all(map(is_count, sizes))
        and mark.keys() <= _MARKS
        and type(progress.finished) is bool
        and progress.batch_size <= _LARGEST_BATCH
        and record.get("step", "plain") in _STEPS
        and (content is None or _CONTENT.fullmatch(str(content)))
        and progress.start <= rows
        # Rows are never taken back, and none follow the end.
        and (before is None or (before.rows <= rows and not before.finished))
    )
    # A finished output has no mark to reopen it with.
    is_closed = progress.finished and mark.keys() <= {"state"}
    if not is_possible or not (is_closed or mark.get("rows") == rows):
        raise ValueError
    if "metrics" in record or progress.metrics is not None:
        check_record(progress.metrics, rows if is_closed else progress.start, rows)
    return progress
