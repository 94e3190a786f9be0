"""Arrow tables that are read as one: their columns, and what pandas records of them."""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_mgpu_strategy.formats.columns import EMPTY, LIST, NUMBER, TEXT
from keras_mgpu_strategy.formats.paths import shorten
from keras_mgpu_strategy.sources.safe_casts import common_dtype

_INDEX = re.compile(r"__index_level_\d+__")
_FLOATS = ("float16", "float32", "float64")
_NUMBERS = re.compile(r"bool|u?int\d+|halffloat|float|double")
_TEXTS = re.compile(r"(large_)?(string|binary)(_view)?|fixed_size_binary\[\d+\]")
_LISTS = re.compile(r"(large_|fixed_size_)?list(_view)?<")
"""As Arrow calls them; some kinds came with pyarrow 16 and 18."""


@dataclasses.dataclass(frozen=True, slots=True)
class ColumnType:
    """A column's kind, dtype ("S" for strings) and lists' lengths, outermost first."""

    kind: str
    dtype: np.dtype | None
    lengths: tuple[int | None, ...] = ()
    shown: str = dataclasses.field(default="", compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Schema:
    """Columns in order: `hidden` are pandas indices, `nan` floats with null for NaN."""

    types: dict[str, ColumnType]
    hidden: frozenset[str]
    nan: frozenset[str]


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """One table; `batches` yields first rows and batches, `keys` are for all rows.

    `arrow` is its schema as it was found; `tokens` is about how many values a row of a
    column has, where that is known.
    """

    path: object
    schema: Schema
    arrow: Any
    num_rows: int
    batches: Callable[[Sequence[str], int, int], Iterator[tuple[int, Any]]]
    keys: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    tokens: Mapping[str, int] = dataclasses.field(default_factory=dict)


def schema_of(schema: Any, path: object) -> Schema:
    """Returns the columns of a table by its Arrow schema; errors name its `path`."""
    names = list(schema.names)
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ValueError(
            f"{path} has several columns named {shorten(map(repr, doubled))}. "
            "Rename them."
        )
    try:
        noted = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
    except (ValueError, RecursionError):
        noted = {}
    columns = [c for c in _list(noted, "columns") if isinstance(c, Mapping)]
    floats: list[Any] = [
        c.get("field_name") for c in columns if c.get("numpy_type") in _FLOATS
    ]
    index = _list(noted, "index_columns")
    return Schema(
        {n: column_type(t) for n, t in zip(names, schema.types, strict=True)},
        frozenset(name for name in names if name in index or _INDEX.fullmatch(name)),
        frozenset(name for name in names if name in floats),
    )


def common_schema(first: Schema, other: Schema, first_path: Any, path: Any) -> Schema:
    """Returns what two files have in common; pandas may leave an index out of one."""
    hidden = first.hidden | other.hidden
    types = {}
    for name in {**first.types, **other.types}:
        ours, theirs = first.types.get(name), other.types.get(name)
        both = ours and theirs and _common_type(ours, theirs)
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


def column_type(arrow_type: Any) -> ColumnType:
    """Returns what a column of an Arrow type holds."""
    lengths: list[int | None] = []
    inner, shown = _storage(arrow_type), str(arrow_type)
    while _LISTS.match(str(inner)):
        lengths.append(getattr(inner, "list_size", None))
        inner = _storage(inner.value_type)
    if str(inner) == "null" and not lengths:
        return ColumnType(EMPTY, None, (), shown)
    dtype = dtype_of(inner)
    if dtype is None:
        return ColumnType(shown, None, (), shown)
    kind = LIST if lengths else TEXT if dtype.kind == "S" else NUMBER
    return ColumnType(kind, dtype, tuple(lengths), shown)


def dtype_of(arrow_type: Any) -> np.dtype | None:
    """The dtype of plain values, strings as kind "S"; None for any other type."""
    if _NUMBERS.fullmatch(str(arrow_type)):
        return np.dtype(arrow_type.to_pandas_dtype())
    if is_decimal(arrow_type):
        return np.dtype(np.float64)
    return np.dtype("S") if _TEXTS.fullmatch(str(arrow_type)) else None


def is_decimal(arrow_type: Any) -> bool:
    """Whether values are exact decimal numbers, of any width."""
    return str(arrow_type).startswith("decimal")


def _common_type(first: ColumnType, other: ColumnType) -> ColumnType | None:
    """The type of a column in two files; None if it cannot be one input."""
    if EMPTY in (first.kind, other.kind):
        return other if first.kind == EMPTY else first
    pairs = list(zip(first.lengths, other.lengths, strict=False))
    same_depth = len(first.lengths) == len(other.lengths)
    if first.kind != other.kind or not same_depth:
        return None
    if any(None not in pair and pair[0] != pair[1] for pair in pairs):
        return None
    dtype = first.dtype
    if dtype is not None and other.dtype is not None and dtype != other.dtype:
        if "S" in (dtype.kind, other.dtype.kind):
            return None
        dtype = common_dtype([dtype, other.dtype])
    lengths = tuple(one if one is not None else two for one, two in pairs)
    return dataclasses.replace(first, dtype=dtype, lengths=lengths)


def _storage(arrow_type: Any) -> Any:
    """The type that a dictionary or a tensor is stored as."""
    if hasattr(arrow_type, "index_type"):
        return arrow_type.value_type
    permutation = getattr(arrow_type, "permutation", None)
    if permutation is None or list(permutation) == sorted(permutation):
        return getattr(arrow_type, "storage_type", arrow_type)
    return arrow_type


def _list(noted: Any, key: str) -> list[Any]:
    found = noted.get(key) if isinstance(noted, Mapping) else None
    return found if isinstance(found, list) else []
