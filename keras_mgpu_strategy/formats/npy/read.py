"""`.npy` files, mapped into memory.

Guarantees:

* Rows are read from disk as they are used; nothing is ever unpickled.
* A file that is truncated, or that claims more rows than it has, is an error before any
  row is read.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from keras_mgpu_strategy.formats.file_source import FileSource, naming, open_arrays
from keras_mgpu_strategy.formats.npy.header import open_mapped
from keras_mgpu_strategy.formats.paths import (
    FileList,
    PathLike,
    is_path,
    one_file,
)
from keras_mgpu_strategy.formats.registry import NPY
from keras_mgpu_strategy.sources.leaf import MappedArray
from keras_mgpu_strategy.sources.nests import leaves, pack, skeleton
from keras_mgpu_strategy.types import Nest


@dataclasses.dataclass(frozen=True)
class Npy:
    """Rows of a `.npy` file.

    Args:
        path: A file that `numpy.save` wrote, of an array of shape `(rows, ...)`:
            numbers, bools or strings.
    """

    path: PathLike

    def open_rows(self, input_spec: Nest) -> FileSource:
        """Opens the file, see `FileInput`. Rows keep their shape.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is not a `.npy` file, is truncated, or holds no rows.
        """
        files = one_file(self.path, ".npy")
        array = open_npy(files.files[0])
        return open_arrays(array, input_spec, files.identity, files.files[0])


@dataclasses.dataclass(frozen=True)
class NpyNest:
    """Rows of several `.npy` files, one per model input.

    Args:
        files: Paths or `Npy`, in a dict by the names of the model's inputs.
    """

    files: Mapping[str, Any]

    def open_rows(self, input_spec: Nest) -> FileSource:
        """Opens all files, see `Npy.open_rows`. All must have as many rows."""
        paths = {name: _path_of(leaf) for name, leaf in leaves(self.files)}
        opened = [one_file(path, ".npy").files[0] for path in paths.values()]
        files = FileList(tuple(opened), tuple(paths))
        arrays = [open_npy(path) for path in opened]
        nest = pack(skeleton(self.files), arrays)
        where = ", ".join(str(path) for path in opened)
        return open_arrays(nest, input_spec, files.identity, where)


def is_npy(x: Any) -> bool:
    """Whether `x` is `Npy` or a path to a `.npy` file."""
    return isinstance(x, Npy) or is_path(x) and NPY.is_of(x)


def open_npy(path: pathlib.Path) -> MappedArray:
    """Maps a `.npy` file into memory, read-only.

    Raises:
        ValueError: The file is not a `.npy` file, is truncated, or holds no rows.
    """
    expected = "as a .npy file of plain numbers or strings. Write it with numpy.save"
    with naming(path, f"be read {expected}"):
        array = open_mapped(path)
    if array.ndim == 0:
        raise ValueError(
            f"{path} holds a single value. Expected an array of shape (rows, ...)."
        )
    return MappedArray(array)


def _path_of(x: Any) -> Any:
    return x.path if isinstance(x, Npy) else x
