"""What paths stand for: a file by its suffix, a folder by what it holds."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from keras_mgpu_strategy.formats import registry
from keras_mgpu_strategy.formats.file_source import FileInput
from keras_mgpu_strategy.formats.npy.read import NpyNest, is_npy
from keras_mgpu_strategy.formats.parquet import hive
from keras_mgpu_strategy.formats.paths import as_path, is_path, shorten, visible
from keras_mgpu_strategy.formats.zarr import read as zarr
from keras_mgpu_strategy.sources.nests import is_nest, leaves

_KNOWN = (
    ".npy, .npz, .parquet (also a folder or list of them), .csv, .h5, .zarr, a folder "
    "or list of images, TFRecords(path, parse_fn), or a dict of .npy files by input"
)
_NO_PATHS = "Pass strings that are data as np.asarray(list_of_strings)."


def names_files(x: Any) -> bool:
    """Whether `x` is a path, or a list, tuple or dict that holds only paths."""
    # An open .npz or HDF5 file is a Mapping too, but costs too much to read here.
    if isinstance(x, dict):
        found = [leaf for _, leaf in leaves(x)]
        return bool(found) and all(is_path(leaf) or is_npy(leaf) for leaf in found)
    return is_path(x) or _lists_paths(x)


def lists_tables(x: Any) -> bool:
    """Whether `x` is a list or tuple of the paths of existing Parquet files."""
    return _lists_paths(x) and all(
        registry.PARQUET.is_of(path) and path.exists() for path in map(as_path, x)
    )


def file_input(x: Any) -> FileInput:
    """Returns the input for what `names_files` found; refuses unknown formats."""
    if isinstance(x, Mapping):
        others = [leaf for _, leaf in leaves(x) if not is_npy(leaf)]
        if not others:
            return NpyNest(x)
        raise ValueError(
            f"{_NO_PATHS} A dict of paths is read if all are .npy files, since "
            f"other kinds hold several inputs in one file; received {shorten(others)}."
        )
    if is_nest(x):
        return _list_input(x)
    path = as_path(x)
    kind = registry.format_of(path)
    if path.is_dir() and kind in (None, registry.IMAGES):
        return _folder_input(path, x)
    if kind is not None:
        return _read(kind, x)
    if not path.suffix and not path.exists():
        raise FileNotFoundError(f"There is no file or folder {path}. {_NO_PATHS}")
    raise ValueError(f"Cannot read rows from {path}, expected {_KNOWN}. {_NO_PATHS}")


def _lists_paths(x: Any) -> bool:
    return isinstance(x, (list, tuple)) and bool(x) and all(map(is_path, x))


def _folder_input(folder: pathlib.Path, x: Any) -> FileInput:
    if any((folder / marker).is_file() for marker in zarr.MARKERS):
        return registry.ZARR.read(x)
    found = visible(folder)
    kinds = [None if path.is_dir() else registry.format_of(path) for path in found]
    several = [kind for kind in kinds if kind is not None and kind.is_many]
    if several and all(kind is several[0] for kind in kinds):
        return _read(several[0], x)
    has_images = any(
        registry.format_of(p) is registry.IMAGES for p in folder.rglob("*")
    )
    if hive.is_partitioned(folder) and not has_images:
        return registry.PARQUET.read(x)
    if has_images and all(kind is registry.IMAGES for kind in several):
        return registry.IMAGES.read(x)
    raise ValueError(
        f"Cannot tell what to read from the folder {folder}, which holds "
        f"{shorten(path.name for path in found) or 'nothing'}. Expected {_KNOWN}."
    )


def _list_input(x: Sequence[Any]) -> FileInput:
    kinds = {registry.format_of(path) for path in x}
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind is not None and kind.is_many:
        return _read(kind, x)
    raise ValueError(
        f"{_NO_PATHS} A list of paths is read if all are Parquet files, or all are "
        f"images; received {shorten(x)}. Files for several model inputs go into a dict "
        "of .npy files by input."
    )


def _read(kind: registry.Format, x: Any) -> FileInput:
    if kind is registry.TFRECORDS:
        raise ValueError(
            f"{x if is_path(x) else shorten(x)}: TFRecord files do not say what their "
            "records hold. Pass TFRecords(path, parse_fn), where parse_fn makes a row "
            "of a serialized record."
        )
    return kind.read(x)
