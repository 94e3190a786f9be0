"""Where an output is while it is written, and how it gets its name at the end.

For `scores.npy`, rows are written to `scores.npy.partial`, with a journal next to it in
`scores.npy.journal`. At the end the first gets the output's name, and the second is
kept as its record (`records.py`).

A shard has its own `scores.npy.shard-00002-of-00008.partial` and `.journal`. At the end
its rows are in the folder of all shards, or, if the format makes single files, in
`scores.shard-00002-of-00008.npy`; the journal stays, to show that they are there.

Guarantees:

* An output under its own name is complete. What it replaces stays until then.
* A process that is killed at any moment leaves what `resume` can continue from.
"""

import contextlib
import glob
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from keras_mgpu_strategy.outputs import journal as journals
from keras_mgpu_strategy.outputs.durable import (
    make_folder,
    refuse_link,
    remove,
    sync_folder,
)
from keras_mgpu_strategy.outputs.journal import Journal
from keras_mgpu_strategy.outputs.lock import Lock
from keras_mgpu_strategy.outputs.records import read_record, record_of, state_of
from keras_mgpu_strategy.outputs.shards import Shard


class Target:
    """The places of one output.

    Args:
        path: The output, as the user names it.
        shard: Which range of its rows, if several runs share it.
        is_shared: Whether all shards write into the output itself, at the same time.
    """

    def __init__(
        self, path: pathlib.Path, shard: Shard | None, *, is_shared: bool = False
    ):
        self.path = path
        self.shard = shard
        stem = path.name if shard is None else f"{path.name}.{shard.name}"
        self.journal = path.with_name(f"{stem}.journal")
        self._is_shared = is_shared and shard is not None
        self.partial = path if self._is_shared else path.with_name(f"{stem}.partial")

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Checks, touching nothing, that the output can be written.

        Raises:
            OSError: Its folder is missing or not writable; or the output exists,
                finished or not, and neither flag says what to do with it; or another
                run is writing it.
            ValueError: Both flags are set.
        """
        if resume and overwrite:
            raise ValueError(
                "Received resume=True and overwrite=True. Expected one: the first goes "
                "on with what is there, the second begins again."
            )
        check_folder(self.path)
        if self.shard is not None:
            refuse_link(self.path)
        lock = Lock(self.journal)
        lock.take()
        lock.release()
        if overwrite or (resume and self.finished()):
            return
        if self.journal.exists() and not resume:
            what = self.path if self.shard is None else f"this shard of {self.path}"
            raise FileExistsError(
                f"{self.journal} shows that {what} was begun. Pass resume=True to go "
                "on with it, or overwrite=True to begin again."
            )
        if not self.journal.exists():
            self._refuse_existing()

    def begun(self) -> Journal | None:
        """The journal of an earlier run; None if there is nothing to resume.

        Raises:
            ValueError: It is damaged.
        """
        return journals.read(self.journal) if self.journal.exists() else None

    def finished(self) -> Journal | None:
        """The journal of the run that completed the whole output, if it is as it was.

        None if a run has been begun since.
        """
        return None if self.journal.exists() else read_record(self.path)

    def check_unchanged(self, found: Journal | None) -> None:
        """Checks, once the output is locked, that no other run has written it since.

        Args:
            found: What `begun` returned earlier.

        Raises:
            FileExistsError: One has.
        """
        now = self.begun()
        if _state_of(now) != _state_of(found):
            raise FileExistsError(
                f"{self.journal} has changed: another run has written {self.path} "
                "since this one began. Nothing was touched. Pass resume=True to go on "
                "with what is there now, or overwrite=True to begin again."
            )
        if now is None:
            self._refuse_existing()

    def clear(self) -> None:
        """Removes what an earlier run left; for a shard, its finished rows too."""
        with contextlib.suppress(FileNotFoundError):
            self.journal.unlink()
        if self._is_shared:
            return
        remove(self.partial)
        if self.shard is not None and self.path.is_dir():
            for part in self._own_parts(self.shard):
                part.unlink()

    def mark(self) -> dict[str, int]:
        """What identifies the complete output once it has its name.

        Empty for shards: they share a folder, or are joined.
        """
        return {} if self.shard is not None else {"state": state_of(self.partial)}

    def place(self) -> None:
        """Gives the finished output its name; continues if a kill interrupted that."""
        if not self._is_shared and self.partial.exists():
            self._move()
            sync_folder(self.path.parent)
        if not self._is_placed():
            raise FileNotFoundError(
                f"{self.journal} shows that {self.path} was finished, but it is gone. "
                "Pass overwrite=True to begin again."
            )
        if self.shard is None:
            remove(_replaced(self.path))
            with contextlib.suppress(FileNotFoundError):
                os.replace(self.journal, record_of(self.path))
            sync_folder(self.path.parent)

    def _is_placed(self) -> bool:
        if self.shard is None or self._is_shared:
            return self.path.exists()
        if shard_file(self.path, self.shard).exists():
            return True
        return self.path.is_dir() and any(self._own_parts(self.shard))

    def _own_parts(self, shard: Shard) -> Iterator[pathlib.Path]:
        return self.path.glob(f"*-{shard.numbers}-*")

    def _move(self) -> None:
        if self.shard is None:
            _replace(self.partial, self.path)
        elif self._holds_parts(self.shard):
            make_folder(self.path)
            for part in sorted(self.partial.iterdir()):
                os.replace(part, self.path / part.name)
            sync_folder(self.path)
            self.partial.rmdir()
        else:
            _replace(self.partial, shard_file(self.path, self.shard))

    def _holds_parts(self, shard: Shard) -> bool:
        """Whether the output is a folder of files that all shards may share."""
        if not self.partial.is_dir():
            return False
        names = [part.name for part in self.partial.iterdir()]
        return all(f"-{shard.numbers}-" in name for name in names)

    def _refuse_existing(self) -> None:
        found = self.path
        if self.shard is not None:
            if self._has_other_shards(self.shard):
                return
            if not found.exists():
                found = shard_file(self.path, self.shard)
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


def check_folder(path: pathlib.Path) -> None:
    """Checks that an output can be written where its path says.

    Raises:
        OSError: The folder around it is missing or cannot be written.
    """
    folder = path.parent
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder} to write {path.name} to.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"The folder {folder} cannot be written.")


def shard_file(path: pathlib.Path, shard: Shard) -> pathlib.Path:
    """The finished file of one shard, where each has one."""
    return path.with_name(f"{path.stem}.{shard.name}{path.suffix}")


def _state_of(journal: Journal | None) -> Any:
    return journal and (journal.about, journal.progress)


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
