"""`merge`: from the shards of an output to the whole.

Nothing is touched before everything is checked, nor removed before the whole is safely
on disk. A killed merge completes when it is run again; of two at once, one is refused.
"""

import dataclasses
import json
import os
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

from keras_mgpu_strategy.formats.registry import output_format
from keras_mgpu_strategy.formats.sharded import MOST_SHARDS, Sharded, find_shards
from keras_mgpu_strategy.metrics.state import values_of
from keras_mgpu_strategy.outputs.durable import (
    check_folder,
    remove,
    sync_folder,
    write_whole,
)
from keras_mgpu_strategy.outputs.lock import Lock
from keras_mgpu_strategy.outputs.shards import Shard
from keras_mgpu_strategy.outputs.strict_json import has_keys, is_count, parse
from keras_mgpu_strategy.outputs.target import (
    Target,
    read_record,
    record_content,
    record_of,
)
from keras_mgpu_strategy.system.environment import expanded

_NOTE = {"num_shards", "num_rows", "is_shared", "journals", "record"}
_MOST_BYTES = 2**26


@dataclasses.dataclass(frozen=True, slots=True)
class Merged:
    """What was merged."""

    num_shards: int
    num_rows: int
    metrics: dict[str, Any] | None = None  # as in `Report`


def merge(
    path: str | os.PathLike[str], custom_objects: Mapping[str, Any] | None = None
) -> Merged:
    """Completes an output that was run in shards; refuses mixed or missing ones.

    Args:
        path: The output, as in `Predictor.predict_to`.
        custom_objects: Names to classes and functions of metrics that are not Keras'.

    Returns:
        The number of shards and of rows, and the metrics of all rows, if any.

    Raises:
        OSError: The output exists next to shards, or another merge is running.
        ValueError: Shards are missing, unfinished or of different runs; metrics of the
            user's own are not in `custom_objects`.
    """
    output = pathlib.Path(expanded(path))
    shards = output_format(output).shards_module()
    check_folder(output)
    own = custom_objects or {}
    with _Verified(output) as verified:
        if not verified.is_there():
            verified.note(_joined(shards, output, verified.partial, own))
        merged = verified.complete()
    found = read_record(output)
    record = found and found.progress and found.progress.metrics
    metrics = values_of(record, own) if record else None
    return dataclasses.replace(merged, metrics=metrics)


class _Verified:
    """The note that all is joined, for these journals; locked in a `with` block."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._note = path.with_name(f"{path.name}.merge")
        self._lock = Lock(self._note)
        self.partial = path.with_name(f"{path.name}.merge.partial")

    def __enter__(self) -> "_Verified":
        self._lock.claim()
        return self

    def __exit__(self, *error: Any) -> None:
        self._lock.release()

    def is_there(self) -> bool:
        """Whether an earlier merge got that far, and nothing has been run since."""
        has_rows = self._path.exists() or self.partial.exists()
        if not (has_rows and self._note.exists()):
            return False
        journals, known = self._journals(), self._read()["journals"]
        return all(known.get(name) == crc for name, crc in journals.items())

    def note(self, sharded: Sharded) -> None:
        """Records what was checked, safely on disk."""
        output = self._path if sharded.is_shared else self.partial
        content = {
            "num_shards": sharded.num_shards,
            "num_rows": sharded.num_rows,
            "is_shared": sharded.is_shared,
            "journals": self._journals(),
            "record": _record(sharded, output),
        }
        self._lock.put(json.dumps(content).encode())

    def complete(self) -> Merged:
        """Gives the output its name, and removes what is no longer needed."""
        self._lock.keep()
        note = self._read()
        if self.partial.exists():
            _check_free(self._path)
            os.replace(self.partial, self._path)
            sync_folder(self._path.parent)
        if note["record"] is not None:
            write_whole(record_of(self._path), note["record"].encode())
        merged = Merged(note["num_shards"], note["num_rows"])
        for index in range(merged.num_shards):
            shard = Shard(index, merged.num_shards)
            journal = Target(self._path, shard).journal
            # The journal goes last: it shows that its file belongs to this merge.
            if journal.exists() and not note["is_shared"]:
                remove(shard.file_of(self._path))
            journal.unlink(missing_ok=True)
        sync_folder(self._path.parent)
        self._note.unlink()
        return merged

    def _read(self) -> dict[str, Any]:
        try:
            if self._note.stat().st_size > _MOST_BYTES:
                raise ValueError("it is too long")
            return _checked_note(parse(self._note.read_bytes()))
        except ValueError as error:
            raise ValueError(
                f"{self._note} is not a note that mgpu merge left, or is damaged "
                f"({error}). Nothing was touched. Remove it, and merge again."
            ) from error

    def _journals(self) -> dict[str, int]:
        """The CRC-32 of each journal of a shard, by its name."""
        begin = f"{self._path.name}.shard-"
        return {
            path.name: zlib.crc32(path.read_bytes())
            for path in self._path.parent.iterdir()
            if path.name.startswith(begin) and path.suffix == ".journal"
            if path.is_file()
        }


def _checked_note(note: Any) -> dict[str, Any]:
    if not has_keys(note, _NOTE) or type(note["is_shared"]) is not bool:
        raise ValueError(f"it does not have the fields {sorted(_NOTE)}")
    counts = [note["num_shards"], note["num_rows"]]
    if not all(map(is_count, counts)) or not 0 < counts[0] <= MOST_SHARDS:
        raise ValueError(f"it records {counts!r:.80} shards and rows")
    journals = note["journals"]
    if not isinstance(journals, dict) or not all(map(is_count, journals.values())):
        raise ValueError("it does not list journals")
    if not isinstance(note["record"], str | None):
        raise ValueError("it holds no record")
    (note["record"] or "").encode()  # a ValueError for half a character
    return note


def _record(sharded: Sharded, output: pathlib.Path) -> str | None:
    """The record of the whole output, as left by a run without shards."""
    first = sharded.first
    if first.is_old or first.progress is None:
        return None
    about = {**first.about, "run": {**first.about["run"], "shard": None}}
    last = dataclasses.replace(
        first.progress, rows=sharded.num_rows, metrics=sharded.metrics
    )
    return record_content(about, last, output).decode()


def _joined(
    shards: Any, path: pathlib.Path, partial: pathlib.Path, own: Mapping[str, Any]
) -> Sharded:
    """Checks the shards, and joins those that are separate files into `partial`."""
    sharded = find_shards(path)
    if sharded.metrics is not None:
        values_of(sharded.metrics, own)
    if sharded.is_shared:
        shards.check(sharded)
        return sharded
    _check_free(path)
    shards.check(sharded)
    remove(partial)
    try:
        shards.join(sharded, partial)
        sync_folder(partial.parent)
    except BaseException:
        remove(partial)
        raise
    return sharded


def _check_free(path: pathlib.Path) -> None:
    if path.exists():
        raise FileExistsError(
            f"{path} exists, next to shards that are to be joined into it. Nothing was "
            "touched. Remove it, or move it away, and merge again."
        )
