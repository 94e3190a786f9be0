"""HDF5 files, opened read-only through h5py; rows are read as they are used.

Refused: whatever leads to other files (links, external storage, virtual data sets), and
data sets that claim far more rows than they hold.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from keras_mgpu_strategy.formats.choosing import Names
from keras_mgpu_strategy.formats.file_source import FileSource, naming, open_named
from keras_mgpu_strategy.formats.paths import PathLike, one_file
from keras_mgpu_strategy.system.extras import import_extra
from keras_mgpu_strategy.system.tracebacks import short_traceback
from keras_mgpu_strategy.types import Nest

_MOST_LINKS = 16
_FREE_BYTES, _MOST_RATIO = 2**32, 2000
"""About the most bytes that deflate, after another filter, can make of one."""


@short_traceback
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
                held, given = list(_walk(h5py, file)), self.datasets
                find = functools.partial(_find, h5py, file, path)
                return open_named(
                    files, "data sets", held, given, input_spec, find, file.close
                )
        except BaseException:
            file.close()
            raise


def _walk(h5py: ModuleType, root: Any) -> Iterator[str]:
    """Yields the names of all data sets and links, each group once; follows no link."""
    waiting, seen = [("", root)], {_address(h5py, root)}
    while waiting:
        above, group = waiting.pop()
        for key in group:
            is_hard = isinstance(group.get(key, getlink=True), h5py.HardLink)
            kind = group.get(key, getclass=True) if is_hard else None
            if kind in (None, h5py.Dataset):
                yield f"{above}{key}"
            elif kind is h5py.Group and _address(h5py, group[key]) not in seen:
                seen.add(_address(h5py, group[key]))
                waiting.append((f"{above}{key}/", group[key]))


def _address(h5py: ModuleType, group: Any) -> int:
    return h5py.h5o.get_info(group.id).addr


def _find(h5py: ModuleType, file: Any, path: Any, name: str) -> Any:
    """Returns a data set, after making sure that all its rows are in this file."""
    where = f"{path}, {name!r}"
    found = _follow(h5py, file, name, where)
    if not isinstance(found, h5py.Dataset) or found.shape in (None, ()):
        raise ValueError(f"{where} is not a data set with rows.")
    others = found.external or []
    if found.is_virtual:
        names = [source.file_name for source in found.virtual_sources()]
        others = [name for name in names if name != "."]
    if others:
        raise ValueError(
            f"{where} keeps its rows in other files, which are not opened: "
            f"{others[0]!r:.80}. Copy them into one file."
        )
    claimed = math.prod(found.shape) * found.dtype.itemsize
    stored = found.id.get_storage_size()
    # HDF5 invents rows that were never written when they are read.
    if not found.is_virtual and claimed > max(_FREE_BYTES, _MOST_RATIO * stored):
        raise ValueError(
            f"{where} claims {claimed} bytes for shape {found.shape} and holds "
            f"{stored}. Expected rows that were written; pass a file of these alone."
        )
    return found


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
        if isinstance(link, h5py.HardLink):
            node = node[part]
            continue
        num_links += 1
        if not isinstance(link, h5py.SoftLink) or num_links > _MOST_LINKS:
            raise ValueError(f"{where} is a link that leads nowhere.")
        parts = link.path.strip("/").split("/") + parts
        node = file if link.path.startswith("/") else node
    return node
