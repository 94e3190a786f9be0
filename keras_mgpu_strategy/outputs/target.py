"""Where an output is while it is written, and how it gets its name at the end.

`NAME.partial` becomes NAME, and `NAME.journal` its record, `.NAME.finished`; shards
have their own, and keep their journals. An output under its name is complete, what it
replaces stays until then, and `resume` continues after a kill at any moment.
"""

import contextlib
import dataclasses
import glob
import hashlib
import os
import pathlib
from typing import Any

from keras_mgpu_strategy.outputs import journal as journals
from keras_mgpu_strategy.outputs.durable import (
    check_folder,
    make_folder,
    refuse_link,
    remove,
    sync_folder,
)
from keras_mgpu_strategy.outputs.journal import Journal, Progress
from keras_mgpu_strategy.outputs.lock import Lock
from keras_mgpu_strategy.outputs.shards import Shard


class Target:
    """The places of one output; if `is_shared`, all shards write into it directly."""

    def __init__(
        self, path: pathlib.Path, shard: Shard | None, *, is_shared: bool = False
    ):
        self.path = path
        self.shard = shard
        stem = path.name if shard is None else f"{path.name}.{shard.name}"
        self.journal = path.with_name(f"{stem}.journal")
        self._is_shared = is_shared and shard is not None
        self.partial = path if self._is_shared else path.with_name(f"{stem}.partial")
        # Where the rows end, unless as parts in a folder that all shards share.
        self._own_path = path if shard is None or is_shared else shard.file_of(path)

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Checks, touching nothing, that it can be written; an `OSError` if not."""
        if resume and overwrite:
            raise ValueError(
                "Received resume=True and overwrite=True. Expected one: the first "
                "continues with what is there, the second begins again."
            )
        check_folder(self.path)
        if self.shard is not None:
            refuse_link(self.path)
        with Lock(self.journal):
            pass
        if overwrite or (resume and self.finished()):
            return
        if not self.journal.exists():
            self._refuse_existing()
        elif not resume:
            what = self.path if self.shard is None else f"this shard of {self.path}"
            raise FileExistsError(
                f"{self.journal} shows that {what} was begun. Pass resume=True to "
                "continue it, or overwrite=True to begin again."
            )

    def begun(self) -> Journal | None:
        """The journal of an earlier run; None if there is nothing to resume."""
        return journals.read(self.journal) if self.journal.exists() else None

    def finished(self) -> Journal | None:
        """The journal of the whole output; None if that changed, or began anew."""
        return None if self.journal.exists() else read_record(self.path)

    def check_unchanged(self, found: Journal | None) -> None:
        """Checks, with the lock held, that `begun` would return the same again."""
        now = self.begun()
        before, after = (run and (run.about, run.progress) for run in (found, now))
        if before != after:
            raise FileExistsError(
                f"{self.journal} has changed: another run has written {self.path} "
                "since this one began. Nothing was touched. Pass resume=True to "
                "continue with what is there now, or overwrite=True to begin again."
            )
        if now is None:
            self._refuse_existing()

    def clear(self) -> None:
        """Removes what an earlier run left; for a shard, its finished rows too."""
        self.journal.unlink(missing_ok=True)
        if not self._is_shared:
            remove(self.partial)
            for part in self._own_parts():
                part.unlink()

    def mark(self) -> dict[str, int]:
        """What identifies the complete output; shards have no such mark."""
        return {} if self.shard is not None else {"state": _state_of(self.partial)}

    def place(self) -> None:
        """Gives the finished output its name; continues if a kill interrupted that."""
        if not self._is_shared and self.partial.exists():
            self._move()
            sync_folder(self.path.parent)
        if not (self._own_path.exists() or self._own_parts()):
            raise FileNotFoundError(
                f"{self.journal} shows that {self.path} was finished, but it is gone. "
                "Pass overwrite=True to begin again."
            )
        if self.shard is None:
            remove(_replaced(self.path))
            with contextlib.suppress(FileNotFoundError):
                os.replace(self.journal, record_of(self.path))
            sync_folder(self.path.parent)

    def _own_parts(self) -> list[pathlib.Path]:
        if self.shard is None or not self.path.is_dir():
            return []
        return [*self.path.glob(f"*-{self.shard.numbers}-*")]

    def _move(self) -> None:
        parts = sorted(self.partial.iterdir()) if self.partial.is_dir() else None
        number = self.shard and f"-{self.shard.numbers}-"
        if not number or parts is None or not all(number in p.name for p in parts):
            _replace(self.partial, self._own_path)
            return
        make_folder(self.path)
        for part in parts:
            os.replace(part, self.path / part.name)
        sync_folder(self.path)
        self.partial.rmdir()

    def _refuse_existing(self) -> None:
        if self.shard is not None and self._has_other_shards(self.shard):
            return
        found = self.path if self.path.exists() else self._own_path
        if found.exists():
            raise FileExistsError(
                f"{found} exists, and is finished or was not written by this package. "
                "Pass overwrite=True to replace it, or give another path."
            )

    def _has_other_shards(self, shard: Shard) -> bool:
        """Whether the output is there because other shards of this run write it."""
        pattern = f"{glob.escape(self.path.name)}.shard-*.journal"
        others = [path.name for path in self.path.parent.glob(pattern)]
        for name in others:
            if not name.endswith(f"-of-{shard.count:05d}.journal"):
                raise FileExistsError(
                    f"{name} shows that {self.path} was begun with another number of "
                    f"shards than {shard.count}, whose rows would overlap. Run with "
                    "that number, or give another path."
                )
        return bool(others)


def record_of(output: pathlib.Path) -> pathlib.Path:
    """Where the record of an output is."""
    return output.with_name(f".{output.name}.finished")


def read_record(output: pathlib.Path) -> Journal | None:
    """The record of an output; None if that is absent or damaged, or not its own."""
    record = record_of(output)
    if record.is_file() and output.exists():
        with contextlib.suppress(ValueError):
            found = journals.read(record)
            mark = found.progress.mark if found.progress else {}
            return found if mark.get("state") == _state_of(output) else None
    return None


def record_content(
    about: dict[str, Any], last: Progress, output: pathlib.Path
) -> bytes:
    """The record of a complete output, from what its journal says."""
    last = dataclasses.replace(last, mark={"state": _state_of(output)}, finished=True)
    return journals.content_of(about, last)


def _state_of(output: pathlib.Path) -> int:
    """A digest of the names, sizes and times of an output's files."""
    files = sorted(output.rglob("*")) if output.is_dir() else [output]
    state = [
        (os.fsencode(file.relative_to(output)), status.st_size, status.st_mtime_ns)
        for file in files
        if not file.is_dir() and (status := file.stat())
    ]
    return int.from_bytes(hashlib.sha256(repr(state).encode()).digest()[:7], "little")


def _replaced(target: pathlib.Path) -> pathlib.Path:
    """Where a folder waits until its replacement has its name."""
    return target.with_name(f"{target.name}.partial.old")


def _replace(source: pathlib.Path, target: pathlib.Path) -> None:
    """Renames a file or folder; what was there goes only once the new one is there."""
    if not target.is_dir() and not source.is_dir():
        os.replace(source, target)
        return
    old = _replaced(target)
    remove(old)
    if target.exists():
        os.replace(target, old)
    os.replace(source, target)
    sync_folder(target.parent)
    remove(old)
