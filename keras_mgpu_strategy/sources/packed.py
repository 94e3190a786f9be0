"""Arrays whose attributes say that stored numbers are not the values, as in netCDF.

By CF conventions, which h5py and zarr do not apply. Numbers to be scaled, shifted or
read as unsigned are refused, and so are rows with a missing or invalid value.
"""

import base64
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_mgpu_strategy.sources.leaf import Fetch
from keras_mgpu_strategy.sources.row_errors import failing

_NEUTRAL = {"scale_factor": 1, "add_offset": 0}
_MARKERS = ("_FillValue", "missing_value")
_NAMES = {*_NEUTRAL, *_MARKERS, "_Unsigned", "_ARRAY_DIMENSIONS"}
_NAMES |= {"valid_range", "valid_min", "valid_max"}
_REMEDY = (
    "Pass the variable that xarray.open_dataset or xarray.open_zarr gives, which "
    "applies it, or x[:] for the numbers as they are stored."
)


def checked_rows(x: Any, path: str) -> Fetch | None:
    """Returns what checks rows as it reads them, if needed; ValueError if packed."""
    attributes: Mapping[str, Any] = x.attrs
    if x.dtype.kind not in "iuf" or not _NAMES.intersection(attributes):
        return None
    try:
        _check_plain(attributes)
        markers = [marker for name in _MARKERS for marker in _numbers(attributes, name)]
        # xarray's zarr arrays of format 2 have the marker where others have a default.
        zarr_format = getattr(getattr(x, "metadata", None), "zarr_format", None)
        if zarr_format == 2 and "_ARRAY_DIMENSIONS" in attributes:
            markers += _numbers({"": x.fill_value}, "")
        ends = _numbers(attributes, "valid_range")
        lows, highs = (_numbers(attributes, f"valid_{end}") for end in ("min", "max"))
        if len(ends) == 2:
            lows, highs = ends[:1], ends[1:]
    except (ValueError, struct.error) as error:
        raise ValueError(
            f"{path} has {error} among its attributes, so that the numbers stored are "
            f"not the values. {_REMEDY}"
        ) from error

    def read(start: int, stop: int) -> Any:
        rows = x[start:stop]
        bad = np.isin(rows, np.asarray(markers, rows.dtype))
        for low in lows[:1]:
            bad |= rows < low
        for high in highs[:1]:
            bad |= rows > high
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
    value = attributes.get(name)
    if isinstance(value, str):
        # xarray encodes float attributes in zarr's JSON this way.
        value = struct.unpack("<d", base64.b64decode(value))[0]
    values = np.asarray([] if value is None else value).ravel()
    return [number for number in values if number == number]
