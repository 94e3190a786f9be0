"""Folders that are named `key=value`, as Spark, Hive, Dask and pandas write them.

All Parquet files below are listed, sorted; anything else is an error. Keys become
columns, of integers or floats if all their values are.
"""

import os
import pathlib
import re
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_mgpu_strategy.formats import paths
from keras_mgpu_strategy.formats.columns import EMPTY, NUMBER, TEXT
from keras_mgpu_strategy.formats.parquet.schema import ColumnType
from keras_mgpu_strategy.formats.registry import PARQUET
from keras_mgpu_strategy.sources.row_errors import Fail

TEXT_KEY = ColumnType(TEXT, np.dtype("S"))
_NULL = "__HIVE_DEFAULT_PARTITION__"
_INTEGER, _FLOAT = r"[-+]?\d{1,18}", r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?"


def list_tables(given: Any) -> paths.FileList:
    """Lists the Parquet files of a path, of `key=value` folders, or of a list."""
    folder = paths.as_path(given) if paths.is_path(given) else None
    if folder is None or not is_partitioned(folder):
        return paths.list_files(given, "Parquet", PARQUET)
    files = paths.below(folder, _walk(folder, set()))
    if not files.files:
        raise ValueError(f"The folders of {folder} hold no Parquet file.")
    return files


def is_partitioned(folder: pathlib.Path) -> bool:
    """Whether a folder holds folders that are named `key=value`."""
    return folder.is_dir() and any(map(_is_partition, paths.visible(folder)))


def keys_of(file: pathlib.Path) -> dict[str, str | None]:
    """Returns the keys of the folders around a file; None for a null."""
    parts = [part.partition("=") for part in file.parts[:-1] if part.find("=") > 0]
    values = {key: urllib.parse.unquote(value) for key, _, value in parts}
    return {key: None if value == _NULL else value for key, value in values.items()}


def key_type(values: Sequence[str | None]) -> ColumnType:
    """Returns the type of a key by its values in all files."""
    present = [value for value in values if value is not None]
    for pattern, dtype in ((_INTEGER, np.int64), (_FLOAT, np.float64)):
        if present and all(re.fullmatch(pattern, value) for value in present):
            return ColumnType(NUMBER, np.dtype(dtype))
    return TEXT_KEY if present else ColumnType(EMPTY, None)


def key_values(
    value: str | None, kind: ColumnType, num_rows: int, as_nan: bool, fail: Fail
) -> np.ndarray:
    """Returns a key as the column of some rows; `fail` for a null that is not NaN."""
    if value is None and as_nan:
        return np.full(num_rows, np.nan)
    if value is None and num_rows:
        fail(0, "has no value by the name of its folder, expected one. Leave it out.")
    if kind.dtype is None or kind.dtype.kind == "S":
        return np.full(num_rows, (value or "").encode(), object)
    return np.full(num_rows, kind.dtype.type(value or 0), kind.dtype)


def _walk(folder: pathlib.Path, seen: set[str]) -> Iterator[pathlib.Path]:
    place = os.path.realpath(folder)
    if place in seen:
        raise ValueError(f"Links lead to the folder {place} twice. Remove them.")
    seen.add(place)
    found = paths.visible(folder)
    others = [
        path.name
        for path in found
        if not (_is_partition(path) if path.is_dir() else PARQUET.is_of(path))
    ]
    if others:
        raise ValueError(
            f"The folder {folder} holds more than Parquet files and folders of them "
            f"named key=value: {paths.shorten(others)}. Pass a list of the files."
        )
    for path in found:
        if path.is_dir():
            yield from _walk(path, seen)
        else:
            yield path


def _is_partition(path: pathlib.Path) -> bool:
    return path.name.find("=") > 0 and path.is_dir()
