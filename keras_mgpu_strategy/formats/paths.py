"""Paths as given by users, resolved to a list of existing files.

A folder's files come sorted, without names that begin with `_` or `.`; anything else
that is not read is an error. An identity (names below the given path, sizes, rows)
stays the same wherever files are moved; the name of a single file does not count.
"""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from keras_mgpu_strategy.digests.code import digest_of_code
from keras_mgpu_strategy.formats.registry import Format
from keras_mgpu_strategy.sources.origins import origin_of_files
from keras_mgpu_strategy.system.environment import expanded
from keras_mgpu_strategy.types import Origin

PathLike: TypeAlias = str | os.PathLike[str]
Paths: TypeAlias = PathLike | Sequence[PathLike]

_MOST_SHOWN = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """Distinguishes files, and what is read of them and `how`, from others."""

    text: str
    files: tuple[pathlib.Path, ...] = dataclasses.field(compare=False)
    how: Any = dataclasses.field(compare=False)

    def __str__(self) -> str:
        """Their names, sizes and rows, and what is read, digested."""
        return self.text

    def origin(self) -> Origin:
        """The same, with what is in the files and what the functions do."""
        about = {"files of the input": self.text}
        if self.how is not None:
            about["how it is read"] = digest_of_code(self.how)
        return origin_of_files(self.files, about)


@dataclasses.dataclass(frozen=True, slots=True)
class FileList:
    """Files in the order in which they are read; `names` are relative to `where`."""

    files: tuple[pathlib.Path, ...]
    names: tuple[str, ...]
    where: object

    def identity(
        self, num_rows: int | None, *chosen: object, how: Any = None
    ) -> Identity:
        """Distinguishes the files, what is read (`chosen`) and `how`, from others."""
        sizes = [file.stat().st_size for file in self.files]
        pairs = list(zip(self.names, sizes, strict=True))
        digest = hashlib.sha256(repr((pairs, num_rows, chosen)).encode()).hexdigest()
        rows = "unknown" if num_rows is None else num_rows
        counts = f"{len(sizes)} files, {sum(sizes)} bytes, {rows} rows"
        return Identity(f"{counts}, sha256 {digest[:16]}", self.files, how)


def is_path(x: Any) -> bool:
    """Whether `x` is a path: `str` or `os.PathLike`, but not `bytes`."""
    return isinstance(x, (str, os.PathLike))


def as_path(path: Any) -> pathlib.Path:
    """Returns a path; raises a `TypeError` for anything that is none."""
    if not is_path(path):
        raise TypeError(
            f"Received {path!r:.80} ({type(path).__name__}), expected a path: str or "
            "os.PathLike."
        )
    return pathlib.Path(expanded(path))


def short_repr(self: Any) -> str:
    """The repr of a dataclass with `paths`, of which it has the first two if many."""
    values = {
        field.name: repr(getattr(self, field.name))
        for field in dataclasses.fields(self)
    }
    paths = self.paths
    if isinstance(paths, list | tuple) and len(paths) > _MOST_SHOWN:
        first, second, *others = paths
        values["paths"] = f"[{first!r}, {second!r}, ... {len(others):,} more]"
    listed = ", ".join(f"{name}={text}" for name, text in values.items())
    return f"{type(self).__name__}({listed})"


def one_file(path: Any, kind: str) -> FileList:
    """Checks that a path is a file; `kind` is what it should hold, for messages."""
    file = as_path(path)
    if file.is_dir():
        raise ValueError(f"{file} is a folder. Expected one {kind} file.")
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {file}.")
    return FileList((file,), ("",), file)


def list_files(paths: Any, kind: str, form: Format) -> FileList:
    """Lists a file, the files of the format `form` in a folder, or those of a list."""
    if not is_path(paths):
        return _listed(paths, kind)
    folder = as_path(paths)
    if not folder.is_dir():
        return one_file(folder, kind)
    found = visible(folder)
    others = [f.name for f in found if f.is_dir() or not form.is_of(f)]
    if others:
        raise ValueError(
            f"The folder {folder} holds more than {kind} files: {shorten(others)}. "
            "Expected only such files; pass a list of the files to read."
        )
    if not found:
        raise ValueError(f"The folder {folder} holds no {kind} file.")
    return below(folder, found)


def below(folder: pathlib.Path, files: Iterable[pathlib.Path]) -> FileList:
    """Names files relative to a folder around them."""
    found = tuple(files)
    names = (file.relative_to(folder).as_posix() for file in found)
    return FileList(found, tuple(names), folder)


def visible(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns what a folder holds, sorted, without names that begin with _ or `.`."""
    return sorted(path for path in folder.iterdir() if path.name[0] not in "_.")


def shorten(names: Iterable[object]) -> str:
    """Returns the names, or the first ten of many, for a message."""
    shown = list(map(str, names))
    rest = f" and {len(shown) - 10} more" if len(shown) > 10 else ""
    return ", ".join(shown[:10]) + rest


def _listed(paths: Any, kind: str) -> FileList:
    if not isinstance(paths, Sequence) or isinstance(paths, bytes):
        as_path(paths)
    files = tuple(one_file(path, kind).files[0] for path in paths)
    if not files:
        raise ValueError(
            f"Received an empty list of paths, expected one or more {kind} files."
        )
    above = os.path.commonpath([file.absolute().parent for file in files])
    names = (os.path.relpath(file.absolute(), above) for file in files)
    names = tuple(pathlib.PurePath(name).as_posix() for name in names)
    return FileList(files, names, files[0])
