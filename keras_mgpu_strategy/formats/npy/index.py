"""The `index.json` of a folder of `.npy` files, read strictly: its outputs and rows."""

import dataclasses
import json
import pathlib
from typing import Any

from keras_mgpu_strategy.outputs.column_names import is_plain, unique
from keras_mgpu_strategy.outputs.strict_json import has_keys, is_count, parse

NAME = "index.json"
_VERSION = 1
_KEYS = {"version", "outputs", "structure", "first_row", "num_rows"}
_MOST_BYTES = 2**26


@dataclasses.dataclass(frozen=True, slots=True)
class NpyIndex:
    """What an index says; `structure` is a nest of `outputs`, None without any row."""

    outputs: tuple[str, ...]
    structure: Any
    first_row: int
    num_rows: int | None  # None before the last one is written

    def content(self) -> bytes:
        """Returns the bytes of the file."""
        fields = {"version": _VERSION, **dataclasses.asdict(self)}
        return f"{json.dumps(fields, indent=2, sort_keys=True)}\n".encode()


def read_index(path: pathlib.Path) -> NpyIndex:
    """Reads an index; a `ValueError` if it is not as it was written."""
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError("it is too long")
    found = parse(path.read_bytes())
    if not has_keys(found, _KEYS) or found.pop("version") != _VERSION:
        raise ValueError(f"it is not an index of version {_VERSION}")
    names = found["outputs"]
    is_list = isinstance(names, list) and all(map(is_plain, names))
    if not is_list or unique(names) != names:
        raise ValueError(f"it lists the outputs {names!r:.80}")
    index = NpyIndex(**{**found, "outputs": tuple(names)})
    counts = [index.first_row, 0 if index.num_rows is None else index.num_rows]
    if not all(map(is_count, counts)):
        raise ValueError(f"it records rows {counts!r:.80}")
    if index.structure is not None and _leaves(index.structure) != set(names):
        raise ValueError("its structure names other outputs")
    return index


def _leaves(structure: Any) -> set[Any]:
    found, waiting = set(), [structure]
    while waiting:
        value = waiting.pop()
        if isinstance(value, (dict, list)):
            waiting.extend(value.values() if isinstance(value, dict) else value)
        else:
            found.add(value)
    return found
