"""Column names that are valid file names on every system. Loads no TensorFlow.

They lead to no other folder, and are neither hidden nor a device. Only descriptions of
columns with such names are read back from a journal.
"""

import re
from collections.abc import Iterable
from typing import Any

from keras_mgpu_strategy.outputs.strict_json import is_count

TAKEN = ("row", "file", "zarr.json")
"""The tables' own columns, and a file of zarr's."""

NAMES: list[Any] = ["file", [], "name"]
"""Follows the descriptions of the outputs if rows have names."""

_LONGEST_NAME = 150
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
_DEVICE = re.compile(
    r"(con|prn|aux|nul|(com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(\.|$)", re.I
)
"""Reserved on Windows, whatever follows the dot."""
_NUMBER = re.compile(r"_[0-9]{1,9}$")


def plain_name(text: str) -> str:
    """Makes a text safe as a file name; deterministic."""
    name = text.encode("utf-8", "replace").decode("utf-8")
    name = _UNSAFE.sub("_", name).replace("..", "__").strip()
    # Leading dots hide files; zarr keeps names with two leading "_" for itself.
    if name.startswith((".", "__")):
        name = "_" + name.lstrip("._")
    name = name.encode()[:_LONGEST_NAME].decode("utf-8", "ignore")
    name = re.sub(r"[.\s]+$", "", name) or "output"
    return f"_{name}" if _DEVICE.match(name) else name


def is_plain(name: Any) -> bool:
    """Whether `unique` can have made such a name from plain names."""
    if not isinstance(name, str):
        return False
    # The number appended to a taken name may make it exceed the longest.
    return any(plain_name(part) == part for part in (name, _NUMBER.sub("", name)))


def unique(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Returns the names, with `_2`, `_3` and so on appended to those already taken."""
    used = {name.casefold() for name in taken}
    result = []
    for name in names:
        free, number = name, 1
        while free.casefold() in used:
            number += 1
            free = f"{name}_{number}"
        used.add(free.casefold())
        result.append(free)
    return result


def check_described(described: Any) -> None:
    """Checks that a file's columns are as `columns.describe` describes them."""
    if not isinstance(described, list):
        raise ValueError(f"it describes outputs by {described!r:.80}")
    columns = described[:-1] if described[-1:] == [NAMES] else described
    for column in columns:
        if not _is_column(column):
            raise ValueError(f"it describes an output by {column!r:.80}")
    names = [name for name, _, _ in columns]
    if unique(names) != names:
        raise ValueError("it describes several outputs of one name")


def _is_column(column: Any) -> bool:
    match column:
        case [name, [None, *shape] | [*shape], str()]:
            return is_plain(name) and all(map(is_count, shape))
    return False
