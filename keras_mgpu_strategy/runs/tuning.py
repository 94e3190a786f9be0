"""What searches have found, in a small file that later processes read.

The file is replaced as a whole, by one process at a time, so that no reader sees half
of it. A file with any other content is an error.
"""

import dataclasses
import json
import math
import os
import pathlib
from typing import Any

from keras_mgpu_strategy.outputs.durable import check_folder
from keras_mgpu_strategy.outputs.lock import Lock
from keras_mgpu_strategy.outputs.strict_json import has_keys, parse
from keras_mgpu_strategy.system.environment import expanded
from keras_mgpu_strategy.system.messages import warn

_VERSION = 1
_MOST_BYTES = 16 << 20
_MOST_ENTRIES = 1000
_MOST_ROWS = 1 << 16  # several times what a search tries
_FILE = {"keras_mgpu_strategy tuning", "found"}
_ENTRY = {"run", "step", "batch_size", "seconds_per_row"}
_STEPS = (None, "plain", "frozen", "xla")


@dataclasses.dataclass(frozen=True)
class Found:
    """What is best for the runs of one kind; None if it was not looked for."""

    step: str | None
    batch_size: int | None  # per replica
    seconds_per_row: float  # of one replica, to know which runs are short

    def is_possible(self) -> bool:
        """Whether a file may hold it."""
        size, seconds = self.batch_size, self.seconds_per_row
        return (
            self.step in _STEPS
            and (size is None or (type(size) is int and 0 < size <= _MOST_ROWS))
            and type(seconds) is float
            and math.isfinite(seconds)
            and seconds > 0
        )


class TuningFile:
    """The file of a path, which is made when there is something to keep."""

    def __init__(self, path: str | os.PathLike[str]):
        if not isinstance(path, str | os.PathLike):
            raise TypeError(
                f"tuning={path!r} of type {type(path).__name__}. Expected the path of "
                "a file, or None."
            )
        self._path = pathlib.Path(expanded(path)).absolute()
        if not self._read():
            check_folder(self._path)

    def find(self, run: dict[str, Any]) -> Found | None:
        """What was found for runs of this kind."""
        return next((found for known, found in self._read() if known == run), None)

    def put(self, run: dict[str, Any], found: Found) -> None:
        """Keeps what was found; warns if the file cannot be written.

        What a search did not look for stays as it is known.
        """
        lock = Lock(self._path, waits=True)
        try:
            lock.claim()
            entries = self._read()
            before = [old for known, old in entries if known == run]
            if before:
                step = found.step or before[0].step
                size = found.batch_size or before[0].batch_size
                found = Found(step, size, found.seconds_per_row)
            others = [entry for entry in entries if entry[0] != run]
            lock.put(_content([*others, (run, found)][-_MOST_ENTRIES:]))
        except (OSError, ValueError) as error:
            warn(f"What was tuned could not be kept: {error}", RuntimeWarning)
        finally:
            lock.release()

    def _read(self) -> list[tuple[dict[str, Any], Found]]:
        if not self._path.exists():
            return []
        try:
            if not self._path.is_file() or self._path.stat().st_size > _MOST_BYTES:
                raise ValueError("it is not a small file")
            return _entries(parse(self._path.read_bytes()))
        except ValueError as error:
            raise ValueError(
                f"tuning={str(self._path)!r} is damaged or another file ({error}). "
                "Nothing was touched. Give the path of a file that tuning= wrote, or "
                "a path where there is no file yet."
            ) from None


def _entries(content: Any) -> list[tuple[dict[str, Any], Found]]:
    if not has_keys(content, _FILE) or not isinstance(content["found"], list):
        raise ValueError("it is not of this package")
    version = content["keras_mgpu_strategy tuning"]
    if type(version) is not int or version != _VERSION:
        raise ValueError(f"its version is {version!r:.40}, expected {_VERSION}")
    entries = []
    for number, entry in enumerate(content["found"]):
        is_entry = has_keys(entry, _ENTRY) and isinstance(entry["run"], dict)
        own = {name: entry[name] for name in _ENTRY - {"run"}} if is_entry else {}
        found = Found(**own) if own else None
        if found is None or not found.is_possible():
            raise ValueError(f"its entry {number} is not one of this package")
        entries.append((entry["run"], found))
    return entries


def _content(entries: list[tuple[dict[str, Any], Found]]) -> bytes:
    found = [{"run": run, **dataclasses.asdict(each)} for run, each in entries]
    whole = {"keras_mgpu_strategy tuning": _VERSION, "found": found}
    return json.dumps(whole, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"
