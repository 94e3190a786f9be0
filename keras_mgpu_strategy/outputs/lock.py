"""One writer for each output: a lock on its journal, which ends with the process.

Of two runs that write the same output, one ends before it touches anything, even if
both begin at once: a new file is locked as `.NAME.partial`, then renamed. If the system
has no such locks (Windows, some network file systems), nothing is locked.
"""

import contextlib
import os
import pathlib
from typing import Any

from keras_mgpu_strategy.outputs.durable import (
    scratch_of,
    sync_folder,
    without_links,
    write_whole,
)

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class Lock:
    """A lock on a file that may not exist yet; `BlockingIOError` if another has it.

    If it `waits`, it waits for the other instead, for what is held only for a moment.
    """

    def __init__(self, path: pathlib.Path, *, waits: bool = False):
        self._path = path
        self._waits = waits
        self._scratch = scratch_of(path)
        self._has_locks = fcntl is not None
        self._file: Any = None
        self._claim: Any = None

    def __enter__(self) -> "Lock":
        """Locks the file that is there now; without one, there is nothing to lock."""
        self.release()
        self._file = self._existing()
        return self

    def __exit__(self, *error: Any) -> None:
        """Releases the lock."""
        self.release()

    def claim(self) -> None:
        """Locks the file and its place, for `put` or `keep` to follow."""
        self.release()
        self._claim = self._new_scratch()
        try:
            self._file = self._existing()
        except BlockingIOError:
            self.release()
            raise

    def put(self, content: bytes) -> None:
        """Writes the file, whole, replacing what may be there; its lock is held."""
        claim = self._claim
        if claim is None:
            write_whole(self._path, content)
            return
        claim.write(content)
        claim.flush()
        os.fsync(claim.fileno())
        os.replace(self._scratch, self._path)
        self._claim = None
        self.release()
        self._file = claim
        sync_folder(self._path.parent)

    def keep(self) -> None:
        """Keeps the file that is there; its lock is held."""
        claim, self._claim = self._claim, None
        if claim is not None:
            with claim:
                self._scratch.unlink(missing_ok=True)

    def release(self) -> None:
        """Releases the file and its place; calling it twice is harmless."""
        self.keep()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _existing(self) -> Any:
        if not self._path.is_file() or self._path.is_symlink():
            return None
        # Network file systems lock only files open for writing.
        mode = "r+b" if os.access(self._path, os.W_OK) else "rb"
        return self._locked(self._path, mode)

    def _new_scratch(self) -> Any:
        """A new file, replacing a link or what a killed process left."""
        while self._has_locks:
            with contextlib.suppress(FileExistsError):
                if (made := self._locked(self._scratch, "x+b")) is None:
                    self._scratch.unlink(missing_ok=True)
                return made
            if self._scratch.is_symlink():
                self._scratch.unlink()
            elif left := self._locked(self._scratch, "r+b"):
                with left:
                    self._scratch.unlink()
        return None

    def _locked(self, path: pathlib.Path, mode: str) -> Any:
        """Opens and locks a file; None if it is gone, or nothing can be locked."""
        while self._has_locks:
            try:
                file: Any = open(path, mode, opener=without_links)  # noqa: SIM115
            except FileNotFoundError:
                return None
            self._flock(file)
            if self._has_locks and _is_at(path, file):
                return file
            # The previous holder has removed or replaced it since.
            file.close()
        return None

    def _flock(self, file: Any) -> None:
        assert fcntl is not None
        try:
            how = 0 if self._waits else fcntl.LOCK_NB
            fcntl.flock(file, fcntl.LOCK_EX | how)
        except BlockingIOError:
            file.close()
            raise BlockingIOError(
                f"{self._path} is in use: another run is writing this output. Wait "
                "until it has ended, or give another path."
            ) from None
        except OSError:  # a file system without locks
            self._has_locks = False


def _is_at(path: pathlib.Path, file: Any) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    return False
