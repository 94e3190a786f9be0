"""The states of metrics as a journal stores them: exact, and added over shards.

A record holds of each metric its name, how it is made, what rows it takes, and its
variables, which count the rows before `row`. JSON has no bytes, so arrays are Base64.
"""

import base64
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mgpu_strategy.outputs.strict_json import has_keys, is_count

Record = dict[str, Any]
"""`{"row": int, "states": [state, ...]}`."""

_KINDS = ("int", "uint", "float")
_DTYPES = {f"{kind}{size}" for kind in _KINDS for size in (16, 32, 64)}
_LARGEST_ROW = 2**26


def stored(array: np.ndarray) -> list[Any]:
    """Returns an array as JSON; a `ValueError` for dtypes that cannot be added."""
    if array.dtype.name not in _DTYPES:
        raise ValueError(
            f"it has a variable of dtype {array.dtype}, expected one of "
            f"{', '.join(sorted(_DTYPES))}"
        )
    little = array.astype(array.dtype.newbyteorder("<"))
    content = base64.b64encode(little.tobytes()).decode()
    return [array.dtype.name, list(array.shape), content]


def array_of(value: Any) -> np.ndarray:
    """Returns the array that `stored` returned as JSON; a `ValueError` for others."""
    dtype, shape, content = _of_length(value, 3)
    is_known = isinstance(dtype, str) and dtype in _DTYPES
    if not is_known or not _is_shape(shape) or not isinstance(content, str):
        raise ValueError("it holds an array of an unknown form")
    little = np.dtype(dtype).newbyteorder("<")
    raw = base64.b64decode(content, validate=True)
    if len(raw) != math.prod(shape) * little.itemsize:
        raise ValueError(f"it holds {len(raw)} bytes for an array of shape {shape}")
    return np.frombuffer(raw, little).reshape(shape).astype(dtype)


def check_record(record: Any, least: int, most: int) -> None:
    """Raises a `ValueError` unless a record can be read, and counts so many rows."""
    if not has_keys(record, {"row", "states"}) or not is_count(record["row"]):
        raise ValueError("it describes metrics in an unknown form")
    if not least <= record["row"] <= most:
        raise ValueError(f"its metrics count {record['row']} rows")
    if not isinstance(record["states"], list):
        raise ValueError("it describes metrics in an unknown form")
    for state in record["states"]:
        _check_state(state)


def added(records: Sequence[Record]) -> Record:
    """Returns the record of all rows, from those of ranges of them in order."""
    # Ranges without rows may not know what labels they would have.
    all_states = [record["states"] for record in records if record["states"]]
    if not all_states:
        return records[-1]
    if any(_forms(states) != _forms(all_states[0]) for states in all_states):
        raise ValueError("their metrics differ")
    together = zip(*all_states, strict=True)
    states = [{**states[0], "arrays": _sums(states)} for states in together]
    return {"row": records[-1]["row"], "states": states}


def _sums(states: Sequence[dict[str, Any]]) -> list[Any]:
    found = zip(*[map(array_of, state["arrays"]) for state in states], strict=True)
    return [stored(_sum(arrays)) for arrays in found]


def _sum(arrays: Sequence[np.ndarray]) -> np.ndarray:
    dtype = arrays[0].dtype
    # Floats are rounded once, not at each shard.
    return np.sum(arrays, 0, np.float64 if dtype.kind == "f" else dtype).astype(dtype)


def _forms(states: list[dict[str, Any]]) -> list[Any]:
    """What must be the same in all shards."""
    return [
        {**state, "arrays": [array[:2] for array in state["arrays"]]}
        for state in states
    ]


def _check_state(state: Any) -> None:
    forms = {"name": str, "kind": str, "config": dict, "rows": list, "arrays": list}
    if not has_keys(state, {*forms}) or not all(
        isinstance(state[key], form) for key, form in forms.items()
    ):
        raise ValueError("it describes a metric in an unknown form")
    for row in _of_length(state["rows"], 2):
        dtype, shape = _of_length(row, 2)
        if not isinstance(dtype, str) or not _is_shape(shape):
            raise ValueError("it describes rows in an unknown form")
        if math.prod(shape) > _LARGEST_ROW:
            raise ValueError(f"its metrics take rows of shape {shape}")
    for array in state["arrays"]:
        array_of(array)


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, list) and all(map(is_count, shape))


def _of_length(value: Any, length: int) -> list[Any]:
    if not isinstance(value, list) or len(value) != length:
        raise ValueError("it describes metrics in an unknown form")
    return value
