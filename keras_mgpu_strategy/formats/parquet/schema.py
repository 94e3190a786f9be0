"""The columns of Parquet files: their types, and what pandas records about them.

Guarantees:

* All files have the same columns, of compatible types.
* An index that pandas stored as a column is known as such.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

from keras_mgpu_strategy.formats.parquet.arrow_columns import (
    ColumnType,
    column_type,
    common_type,
)
from keras_mgpu_strategy.formats.paths import shorten

_INDEX = re.compile(r"__index_level_\d+__")
_FLOATS = ("float16", "float32", "float64")


@dataclasses.dataclass(frozen=True, slots=True)
class Schema:
    """The columns of one file or of several.

    Args:
        types: What each column holds, in the order of the file.
        hidden: Columns that hold an index of pandas.
        nan: Columns that were NumPy floats, for which pandas writes NaN as null.
    """

    types: dict[str, ColumnType]
    hidden: frozenset[str]
    nan: frozenset[str]


def schema_of(schema: Any, path: object) -> Schema:
    """Returns the columns of one table.

    Args:
        schema: Of Arrow.
        path: Names the table in messages.

    Raises:
        ValueError: Several columns have one name.
    """
    names = list(schema.names)
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ValueError(
            f"{path} has several columns of the name {shorten(map(repr, doubled))}. "
            "Rename them."
        )
    noted = _noted(schema)
    index = [name for name in _list(noted, "index_columns") if isinstance(name, str)]
    columns = [c for c in _list(noted, "columns") if isinstance(c, Mapping)]
    floats: list[Any] = [
        c.get("field_name") for c in columns if c.get("numpy_type") in _FLOATS
    ]
    return Schema(
        {n: column_type(t) for n, t in zip(names, schema.types, strict=True)},
        frozenset(name for name in names if name in index or _INDEX.fullmatch(name)),
        frozenset(name for name in names if name in floats),
    )


def common_schema(first: Schema, other: Schema, first_path: Any, path: Any) -> Schema:
    """Returns the columns that two files have in common.

    An index is left out if one file lacks it: pandas stores one only if it does not
    just count the rows.

    Raises:
        ValueError: Other columns are missing, or their types are incompatible.
    """
    hidden = first.hidden | other.hidden
    types = {}
    for name in [*first.types, *(n for n in other.types if n not in first.types)]:
        ours, theirs = first.types.get(name), other.types.get(name)
        both = None
        if ours is not None and theirs is not None:
            both = common_type(ours, theirs)
        if both is not None:
            types[name] = both
        elif name not in hidden:
            raise ValueError(
                f"{path} does not have the columns of {first_path}: {name!r} is "
                f"{theirs.shown if theirs else 'missing'}, expected "
                f"{ours.shown if ours else 'no such column'}. Read files of one layout "
                "at a time."
            )
    return Schema(types, hidden & types.keys(), first.nan & other.nan)


def _noted(schema: Any) -> Any:
    """What pandas records in a file; nothing if it cannot be read."""
    try:
        return json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
    except (ValueError, RecursionError):
        return {}


def _list(noted: Any, key: str) -> list[Any]:
    found = noted.get(key) if isinstance(noted, Mapping) else None
    return found if isinstance(found, list) else []
