"""Arrays whose attributes say that stored numbers are not the values, as in netCDF.

The attributes are those of the CF conventions, found in netCDF4 files (which are HDF5)
and zarr arrays. h5py and zarr return the stored numbers and do not apply them.

Guarantees:

* Numbers that must be scaled, shifted or read as unsigned are refused; the error names
  the attribute and the remedy.
* A number that stands for a missing value, or is outside the valid range, is an error
  that names its row; arrays without any are read as they are.
"""

import base64
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from keras_mgpu_strategy.sources.row_errors import failing

_NEUTRAL = {"scale_factor": 1, "add_offset": 0}
_MARKERS = ("_FillValue", "missing_value")
_NAMES = {*_NEUTRAL, *_MARKERS, "_Unsigned", "_ARRAY_DIMENSIONS"}
_NAMES |= {"valid_range", "valid_min", "valid_max"}
_REMEDY = (
    "Pass the variable that xarray.open_dataset or xarray.open_zarr gives, which "
    "applies it, or x[:] for the numbers as they are stored."
)

Fetch = Callable[[int, int], Any]


def checked_rows(x: Any, path: str, fetch: Fetch) -> Fetch:
    """Returns what reads rows of an array whose stored numbers are its values.

    Args:
        x: An h5py or zarr array.
        path: Names it in messages.
        fetch: Reads its rows.

    Raises:
        ValueError: If they are not its values.
    """
    attributes: Mapping[str, Any] = x.attrs
    if x.dtype.kind not in "iuf" or not _NAMES.intersection(attributes):
        return fetch
    try:
        _check_plain(attributes)
        markers = [marker for name in _MARKERS for marker in _numbers(attributes, name)]
        markers += _fill_value(x, attributes)
        low, high = _valid_range(attributes)
    except (ValueError, struct.error) as error:
        raise ValueError(
            f"{path} has {error} among its attributes, so that the numbers stored are "
            f"not the values. {_REMEDY}"
        ) from error

    def read(start: int, stop: int) -> Any:
        rows = fetch(start, stop)
        bad = np.isin(rows, np.asarray(markers, rows.dtype))
        bad |= rows < low if low is not None else False
        bad |= rows > high if high is not None else False
        if bad.any():
            place = np.unravel_index(int(bad.argmax()), bad.shape)
            failing(path, start)(
                int(place[0]),
                f"holds {rows[place]!s}, which is a missing value by the attributes of "
                f"the array (_FillValue, missing_value, valid_range). {_REMEDY}",
            )
        return rows

    return read


def _check_plain(attributes: Mapping[str, Any]) -> None:
    for name, neutral in _NEUTRAL.items():
        if name in attributes and np.any(np.asarray(attributes[name]) != neutral):
            raise ValueError(f"{name}={attributes[name]!s:.40}")
    unsigned = attributes.get("_Unsigned", "false")
    text = unsigned.decode() if isinstance(unsigned, bytes) else str(unsigned)
    if text.lower() == "true":
        raise ValueError("_Unsigned=true")


def _numbers(attributes: Mapping[str, Any], name: str) -> list[Any]:
    """Returns the numbers in an attribute, except NaN, which needs no marker."""
    value = attributes.get(name)
    if isinstance(value, str):
        # xarray encodes float attributes in zarr's JSON this way.
        value = struct.unpack("<d", base64.b64decode(value))[0]
    values = np.asarray([] if value is None else value).ravel()
    return [number for number in values if number == number]


def _fill_value(x: Any, attributes: Mapping[str, Any]) -> list[Any]:
    """The fill value of xarray's zarr format 2 arrays, where it is not an attribute."""
    metadata = getattr(x, "metadata", None)
    is_format_2 = getattr(metadata, "zarr_format", None) == 2
    if not is_format_2 or "_ARRAY_DIMENSIONS" not in attributes:
        return []
    return _numbers({"": x.fill_value}, "")


def _valid_range(attributes: Mapping[str, Any]) -> tuple[Any, Any]:
    pair = _numbers(attributes, "valid_range")
    ends = _numbers(attributes, "valid_min")[:1], _numbers(attributes, "valid_max")[:1]
    low, high = (end[0] if end else None for end in ends)
    return (pair[0], pair[1]) if len(pair) == 2 else (low, high)
