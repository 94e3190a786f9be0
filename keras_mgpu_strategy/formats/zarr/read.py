"""zarr arrays and groups, read through zarr.

Guarantees:

* Opened read-only, and rows are read from disk as they are used.
* Only arrays inside the folder are opened, and only with codecs that run no code.
* As zarr defines it, missing chunks read as the array's fill value: a lost chunk cannot
  be distinguished from one that was never written. A truncated one is an error.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from keras_mgpu_strategy.formats.choosing import (
    Names,
    choose,
    in_structure,
    present_inputs,
)
from keras_mgpu_strategy.formats.file_source import FileSource, naming, open_arrays
from keras_mgpu_strategy.formats.paths import FileList, PathLike, as_path, below
from keras_mgpu_strategy.formats.zarr.chunks import check_chunks
from keras_mgpu_strategy.formats.zarr.safety import check_array, check_links
from keras_mgpu_strategy.system.extras import import_extra
from keras_mgpu_strategy.types import Nest

MARKERS = ("zarr.json", ".zarray", ".zgroup")


@dataclasses.dataclass(frozen=True)
class Zarr:
    """Rows of a zarr array, or of the arrays in a zarr group.

    Args:
        path: The folder.
        arrays: Names of the arrays of a group to read, such as "images" or
            "train/images": one, one per model input in the order of the model, or a
            dict by input. None takes those named like the model's inputs, or the only
            one.
    """

    path: PathLike
    arrays: Names = None

    def open_rows(self, input_spec: Nest) -> FileSource:
        """Opens the folder, see `FileInput`. Rows keep their shape.

        Raises:
            FileNotFoundError: There is no such folder.
            ValueError: It is damaged, not a zarr folder, or does not fit the model.
            ImportError: zarr is missing.
        """
        zarr = import_extra("zarr", "zarr", "Reading zarr folders")
        path = as_path(self.path)
        _check_folder(path)
        with naming(path, "be opened as a zarr array or group"):
            check_links(path)
            root = zarr.open(str(path), mode="r")
            if isinstance(root, zarr.Array):
                names, arrays = [""], [root]
                _check_unnamed(self.arrays, path)
            else:
                what = f"{path}, names of arrays"
                held = list(_walk(path))
                input_spec = present_inputs(input_spec, held, self.arrays)
                names = choose(held, self.arrays, input_spec, what)
                arrays = [root[name] for name in names]
            for name, array in zip(names, arrays, strict=True):
                check_array(array)
                check_chunks(path / name)
        nest = root if names == [""] else in_structure(input_spec, arrays)
        return open_arrays(
            nest, input_spec, lambda n: _files(path).identity(n, names), path
        )


def _files(folder: pathlib.Path) -> FileList:
    return below(folder, sorted(p for p in folder.rglob("*") if p.is_file()))


def _check_folder(path: pathlib.Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"There is no folder {path}.")
    if not any((path / marker).is_file() for marker in MARKERS):
        raise ValueError(
            f"{path} is no zarr folder: it has none of {', '.join(MARKERS)}."
        )


def _check_unnamed(given: Names, path: pathlib.Path) -> None:
    if given is not None:
        raise ValueError(
            f"{path} is one zarr array, received arrays={given!r}. Expected None; "
            "names choose among the arrays of a group."
        )


def _walk(folder: pathlib.Path, above: str = "") -> Iterator[str]:
    """Yields the names of all arrays in a group, however deep."""
    for child in sorted(folder.iterdir()):
        kind = _node_kind(child) if child.is_dir() else None
        if kind == "array":
            yield f"{above}{child.name}"
        elif kind == "group":
            yield from _walk(child, f"{above}{child.name}/")


def _node_kind(folder: pathlib.Path) -> Any:
    if (folder / ".zarray").is_file():
        return "array"
    if (folder / ".zgroup").is_file():
        return "group"
    if (folder / "zarr.json").is_file():
        return json.loads((folder / "zarr.json").read_bytes()).get("node_type")
    return None
