"""HDF5 files, read through h5py.

Guarantees:

* Opened read-only, and rows are read from disk as they are used.
* Nothing outside the file is opened: external links, external storage and virtual
  data sets over other files are refused.
* Data sets that claim far more rows than they hold are refused.
"""

import dataclasses
import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from keras_mgpu_strategy.formats.choosing import (
    Names,
    choose,
    in_structure,
    present_inputs,
)
from keras_mgpu_strategy.formats.file_source import FileSource, naming, open_arrays
from keras_mgpu_strategy.formats.paths import PathLike, one_file
from keras_mgpu_strategy.system.extras import import_extra
from keras_mgpu_strategy.types import Nest

_MOST_LINKS = 16
_FREE_BYTES, _MOST_RATIO = 2**32, 2000
"""About the most bytes that deflate, after another filter, can make of one."""


@dataclasses.dataclass(frozen=True)
class Hdf5:
    """Rows of the data sets in an HDF5 file.

    Args:
        path: The file. It stays open as long as its rows are read.
        datasets: Names of the data sets to read, such as "images" or "train/images":
            one, one per model input in the order of the model, or a dict by input.
            None takes those named like the model's inputs, or the only one.
    """

    path: PathLike
    datasets: Names = None

    def open_rows(self, input_spec: Nest) -> FileSource:
        """Opens the file, see `FileInput`. Rows keep their shape.

        Raises:
            OSError: There is no such file, or it is damaged.
            ValueError: It does not fit the model, or leads to other files.
            ImportError: h5py is missing.
        """
        h5py = import_extra("h5py", "hdf5", "Reading HDF5 files")
        files = one_file(self.path, "HDF5")
        path = files.files[0]
        with naming(path, "be opened as an HDF5 file"):
            file = h5py.File(path, "r")
        try:
            with naming(path, "be read"):
                what = f"{path}, names of data sets"
                held = list(_walk(h5py, file))
                input_spec = present_inputs(input_spec, held, self.datasets)
                names = choose(held, self.datasets, input_spec, what)
                found = [_find(h5py, file, name, path) for name in names]
        except BaseException:
            file.close()
            raise
        nest = in_structure(input_spec, found)
        return open_arrays(
            nest, input_spec, lambda n: files.identity(n, names), path, file.close
        )


def _walk(h5py: ModuleType, root: Any) -> Iterator[str]:
    """Yields the names of all data sets and links; links are not followed.

    Groups may contain each other, or one group many times: each is visited once.
    """
    waiting, seen = [("", root)], {_address(h5py, root)}
    while waiting:
        above, group = waiting.pop()
        for key in group:
            link = group.get(key, getlink=True)
            kind = group.get(key, getclass=True) if _is_hard(h5py, link) else None
            if kind in (None, h5py.Dataset):
                yield f"{above}{key}"
            elif kind is h5py.Group and _address(h5py, group[key]) not in seen:
                seen.add(_address(h5py, group[key]))
                waiting.append((f"{above}{key}/", group[key]))


def _address(h5py: ModuleType, group: Any) -> int:
    return h5py.h5o.get_info(group.id).addr


def _is_hard(h5py: ModuleType, link: Any) -> bool:
    return isinstance(link, h5py.HardLink)


def _find(h5py: ModuleType, file: Any, name: str, path: Any) -> Any:
    """Returns a data set, after making sure that it is in this file."""
    found = _follow(h5py, file, name, f"{path}, {name!r}")
    if not isinstance(found, h5py.Dataset) or found.shape in (None, ()):
        raise ValueError(f"{path}, {name!r} is no data set with rows.")
    others = found.external or []
    if found.is_virtual:
        names = [source.file_name for source in found.virtual_sources()]
        others = [name for name in names if name != "."]
    if others:
        raise ValueError(
            f"{path}, {name!r} keeps its rows in other files, which are not opened: "
            f"{others[0]!r:.80}. Copy them into one file."
        )
    if not found.is_virtual:
        _check_size(found, f"{path}, {name!r}")
    return found


def _check_size(found: Any, where: str) -> None:
    """Refuses rows that were never written: HDF5 invents them when they are read."""
    claimed = math.prod(found.shape) * found.dtype.itemsize
    stored = found.id.get_storage_size()
    if claimed > max(_FREE_BYTES, _MOST_RATIO * stored):
        raise ValueError(
            f"{where} claims {claimed} bytes for shape {found.shape} and holds "
            f"{stored}. Expected rows that were written; pass a file of these alone."
        )


def _follow(h5py: ModuleType, file: Any, name: str, where: str) -> Any:
    """Walks to an object by name; h5py alone would open the files of links."""
    node, parts, num_links = file, name.strip("/").split("/"), 0
    while parts:
        part = parts.pop(0)
        link = node.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise ValueError(
                f"{where} is a link to the file {link.filename!r}, which is not "
                "opened. Pass that file instead."
            )
        if _is_hard(h5py, link):
            node = node[part]
            continue
        num_links += 1
        if not isinstance(link, h5py.SoftLink) or num_links > _MOST_LINKS:
            raise ValueError(f"{where} is a link that leads nowhere.")
        parts = link.path.strip("/").split("/") + parts
        node = file if link.path.startswith("/") else node
    return node
