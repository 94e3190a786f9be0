"""Files that survive the process being killed and the machine losing power.

What `replacing` writes is always the old file or the new one, whole; what an `Appender`
has synced is on disk. A full disk is an `OSError` that names the file. No link is
followed when writing: it is replaced, or refused where a file is resumed.
"""

import contextlib
import errno
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np

_CANNOT_RESERVE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def remove(path: pathlib.Path) -> None:
    """Removes a file or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_folder(path: pathlib.Path) -> None:
    """Checks that an output can be written where its path says."""
    folder = path.parent
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no folder {folder} to write {path.name} to. Create it first."
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"The folder {folder} cannot be written.")


def sync_folder(path: pathlib.Path) -> None:
    """Puts on disk which files a folder holds."""
    if os.name == "nt":  # Windows cannot open folders, and syncs them itself
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(path: pathlib.Path, *, sync: bool = True) -> None:
    """Makes a folder, unless it exists; refuses a link. `sync` is for its parent."""
    path.mkdir(exist_ok=True)
    refuse_link(path)
    if sync:
        sync_folder(path.parent)


def refuse_link(path: pathlib.Path) -> None:
    """Refuses to write where there is a link, by a `FileExistsError`."""
    if path.is_symlink():
        raise FileExistsError(
            f"{path} is a link, and links are not written through. Remove it, or give "
            "the path that it leads to."
        )


@contextlib.contextmanager
def synced_file(path: pathlib.Path) -> Iterator[Any]:
    """Opens a new file that is safely on disk after the block."""
    with _naming(path), _new_file(path) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def scratch_of(path: pathlib.Path, tag: str = "") -> pathlib.Path:
    """The name under which `replacing` writes: hidden, and known for later cleanup."""
    return path.with_name(f".{path.name}{tag}.partial")


@contextlib.contextmanager
def replacing(path: pathlib.Path, tag: str = "") -> Iterator[Any]:
    """Opens a file that then replaces `path`; `tag` separates concurrent writers."""
    scratch = scratch_of(path, tag)
    try:
        with synced_file(scratch) as file:
            yield file
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_whole(path: pathlib.Path, content: bytes, tag: str = "") -> None:
    """Writes a small file, whole or not at all."""
    with replacing(path, tag) as file:
        file.write(content)


class Appender:
    """A file that grows at its end, or is filled from its start; writes are unbuffered.

    `kept` bytes of an existing file stay, the rest is dropped; None makes a new file.
    """

    def __init__(self, path: pathlib.Path, kept: int | None = None):
        self._path = path
        if kept is None:
            self._file = _new_file(path, buffering=0)
            sync_folder(path.parent)
            return
        size = file_size(path)
        if size < kept:
            raise damaged(path, f"has {size} bytes, expected at least {kept}")
        self._file: Any = open(path, "r+b", buffering=0, opener=without_links)  # noqa: SIM115
        self._file.truncate(kept)

    def reserve(self, num_bytes: int) -> None:
        """Grows the file, where systems can; raises if the disk has no room."""
        if num_bytes == 0 or not hasattr(os, "posix_fallocate"):
            return
        try:
            os.posix_fallocate(self._file.fileno(), 0, num_bytes)
        except OSError as error:
            if error.errno in _CANNOT_RESERVE:
                return
            reason = f"{error.strerror} for {num_bytes} bytes of results"
            raise OSError(error.errno, reason, str(self._path)) from error

    def put(self, content: bytes | np.ndarray, offset: int) -> int:
        """Writes bytes, or an array's values in C order; returns where they end."""
        if isinstance(content, np.ndarray):
            view = np.ascontiguousarray(content).reshape(-1).view(np.uint8).data
        else:
            view = memoryview(content)
        self._file.seek(offset)
        end = offset + len(view)
        with _naming(self._path):
            while view:
                view = view[self._file.write(view) :]
        return end

    def sync(self) -> None:
        """Puts on disk what was written."""
        with _naming(self._path):
            os.fsync(self._file.fileno())

    def end_at(self, num_bytes: int) -> None:
        """Gives the file its final length."""
        self._file.truncate(num_bytes)

    def close(self) -> None:
        """Closes the file; calling it twice is harmless."""
        self._file.close()


@contextlib.contextmanager
def _naming(path: pathlib.Path) -> Iterator[None]:
    """Adds the file to the error of a full disk, in which a write leaves it out."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL and error.filename is None:
            error.filename = str(path)
        raise


def _new_file(path: pathlib.Path, buffering: int = -1) -> Any:
    """Opens an empty file, replacing a file or link if there is one."""
    with contextlib.suppress(FileExistsError):
        return open(path, "x+b", buffering=buffering)
    path.unlink()
    return open(path, "x+b", buffering=buffering)


def without_links(path: str, flags: int) -> int:
    """Opens a file but never a link; an `opener` for `open`."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def file_size(path: pathlib.Path) -> int:
    """Bytes of a file that must exist, and not be a link."""
    if path.is_symlink():
        raise damaged(path, "is a link, which is not followed")
    if not path.is_file():
        raise damaged(path, "is missing")
    return path.stat().st_size


def damaged(path: pathlib.Path, what: str) -> ValueError:
    """The error for files that cannot be resumed."""
    return ValueError(
        f"{path} {what}, so the unfinished output cannot be continued. Put the file "
        "back as it was left, or start again from the first row."
    )
