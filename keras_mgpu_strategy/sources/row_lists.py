"""Lists of rows that may differ in length, made into arrays some rows at a time.

No loop of Python runs over tokens. What an array of rows must be like is checked for
all rows at once; tokens of lists when they are read.
"""

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from types import NoneType
from typing import Any

import numpy as np

from keras_mgpu_strategy.sources.row_errors import BadRow
from keras_mgpu_strategy.sources.safe_casts import common_dtype
from keras_mgpu_strategy.types import Ragged

_UNMASKED = "Pass x.filled(value)."
_SCALARS = (str, bytes, bool, int, float, complex, np.generic)


class RowList:
    """Rows, each a list or an array of tokens, in the form of a `Ragged`.

    Slicing makes a `Ragged`. Raises BadRow, whose index is that of the row in the list,
    or in the slice; `error` is one that is raised later, with the number of the row.
    """

    error: BadRow | None = None

    def __init__(self, rows: Sequence[Any]) -> None:
        kinds = {*map(type, rows)}
        self._are_lists = kinds <= {list, tuple}
        if not self._are_lists and kinds != {np.ndarray}:
            rows = [*map(_row, itertools.count(), rows)]
        self._rows = rows
        if not self._are_lists:
            self._rows, inner, self.dtype = _checked(rows)
        self.lengths = np.fromiter(map(len, self._rows), np.int64, len(rows))
        if self._are_lists:
            first = int((self.lengths > 0).argmax()) if len(rows) else 0
            example = _tokens(rows[first : first + 1], self.lengths[first : first + 1])
            inner, self.dtype = example.shape[1:], kind_of_values(example)
        self.inner = inner

    @property
    def shape(self) -> tuple[Any, ...]:
        """`(num_rows, None, ...)`."""
        return (len(self), None, *self.inner)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._rows)

    def __getitem__(self, rows: slice) -> Ragged:
        """Consecutive rows, in new memory."""
        some, lengths = self._rows[rows], self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        if not offsets[-1]:
            return Ragged(np.empty((0, *self.inner), self.dtype), offsets)
        if not self._are_lists:
            return Ragged(np.concatenate(some), offsets)
        values = _tokens(some, lengths)
        if values.shape[1:] != self.inner:
            row = int(np.argmax(lengths > 0))
            raise _odd_shape(row, values.shape[1:], self.inner)
        return Ragged(values, offsets)

    def widest(self) -> np.dtype:
        """The dtype of all rows, which is looked for in each token of lists."""
        if not self._are_lists or self.dtype.kind not in "biuf" or self.inner:
            return self.dtype
        kinds = {*map(type, itertools.chain.from_iterable(self._rows))}
        wide = {bool: np.dtype(bool), int: np.dtype(np.int64), float: np.dtype(float)}
        return common_dtype([self.dtype, *(wide[k] for k in kinds if k in wide)])


@contextlib.contextmanager
def refusing_ragged(x: Any, path: str) -> Iterator[None]:
    """Names the remedy if rows cannot be used since they are of unequal length."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if (where := _where_ragged(x, path)) is None:
            raise
        raise ValueError(
            f"{where} has rows of unequal length, expected one length for all rows. "
            "Pass pad=mgpu.Pad(), by which they are padded to a few lengths."
        ) from error


def _where_ragged(x: Any, path: str) -> str | None:
    """The path of the lists of unequal length; None if there are none."""
    if not isinstance(x, dict | list | tuple):
        return None
    are_rows = not isinstance(x, dict) and all(isinstance(r, list | tuple) for r in x)
    if are_rows and len({*map(len, x)}) > 1:
        return path
    pairs = x.items() if isinstance(x, dict) else enumerate(x)
    found = (_where_ragged(inner, f"{path}[{key!r}]") for key, inner in pairs)
    return next(filter(None, found), None)


def is_scalar(row: Any) -> bool:
    """Whether a row has no tokens at all."""
    return isinstance(row, _SCALARS) or row is None or getattr(row, "shape", 1) == ()


def _row(index: int, row: Any) -> np.ndarray:
    if is_scalar(row):
        raise BadRow(
            f"is {row!r:.40} ({type(row).__name__}), expected a list or an array of "
            "tokens, as in other rows.",
            index,
        )
    if isinstance(row, list | tuple):
        return _tokens([row], np.array([len(row)]))
    if not hasattr(row, "__array__"):
        raise BadRow(f"is {type(row).__name__}, expected a list or an array.", index)
    if isinstance(row, np.ma.MaskedArray):
        raise BadRow(f"has a mask, expected none. {_UNMASKED}", index)
    return np.asarray(row)


def _checked(
    rows: Sequence[np.ndarray],
) -> tuple[Sequence[np.ndarray], tuple[int, ...], np.dtype]:
    """Arrays, the shape of their tokens and their common dtype."""
    first = next((row for row in rows if row.size), rows[0])
    inner, shapes = first.shape[1:], {row.shape[1:] for row in rows}
    if shapes != {inner}:
        for index, row in enumerate(rows):
            if row.shape[1:] != inner and (len(row) or not row.ndim):
                raise _odd_shape(index, row.shape[1:], inner)
    dtypes = {row.dtype for row in rows if row.size} or {first.dtype}
    if shapes != {inner} or {row.dtype for row in rows} != dtypes:
        # Of what is empty, neither shape nor dtype counts.
        none = np.empty((0, *inner), first.dtype)
        rows = [row if row.size else none for row in rows]
    if len(dtypes) == 1:
        return rows, inner, kind_of_values(first)
    _check_kinds(rows)
    common = common_dtype([*dtypes])
    if np.result_type(*dtypes) != common:  # a float, which would round integers
        rows = [row.astype(object) for row in rows]
    return rows, inner, common


def _check_kinds(rows: Sequence[np.ndarray]) -> None:
    """Refuses strings among numbers, which NumPy would make strings."""
    for index, row in enumerate(rows):
        if (row.dtype.kind in "UST") != (rows[0].dtype.kind in "UST"):
            raise BadRow(
                f"has dtype={row.dtype}, expected {rows[0].dtype} as in the first row, "
                "or another of its kind.",
                index,
            )


def _tokens(rows: Iterable[Any], lengths: np.ndarray) -> np.ndarray:
    """All tokens of lists, one after another."""
    return _array([*itertools.chain.from_iterable(rows)], np.cumsum(lengths))


def _array(items: list[Any], ends: np.ndarray) -> np.ndarray:
    """An array of items, of which those up to each of `ends` belong to a row."""
    kinds = {*map(type, items)}
    if kinds and kinds <= {list, tuple}:
        sizes = np.fromiter(map(len, items), np.int64, len(items))
        if (sizes != sizes[0]).any():
            place = int((sizes != sizes[0]).argmax())
            shapes = (int(sizes[place]),), (int(sizes[0]),)
            raise _odd_shape(_row_of(place, ends), *shapes)
        flat = _array([*itertools.chain.from_iterable(items)], ends * sizes[0])
        return flat.reshape(len(items), int(sizes[0]), *flat.shape[1:])
    if any(issubclass(kind, str | bytes | NoneType) for kind in kinds):
        if not all(issubclass(kind, str | bytes) for kind in kinds):
            raise _odd_kind(items, ends)
        found = np.empty(len(items), object)
        found[:] = items
        return found
    if any(issubclass(kind, np.ma.MaskedArray) for kind in kinds):
        place = [isinstance(item, np.ma.MaskedArray) for item in items].index(True)
        raise BadRow(f"has a mask, expected none. {_UNMASKED}", _row_of(place, ends))
    try:
        found = np.array(items)
    except (TypeError, ValueError) as error:
        shapes = [np.shape(item) for item in items]
        place = next((i for i, s in enumerate(shapes) if s != shapes[0]), 0)
        row = _row_of(place, ends)
        raise _odd_shape(row, shapes[place], shapes[0]) from error
    if found.dtype.kind == "O":  # integers beyond 64 bits, or no numbers at all
        wide = [np.asarray(item).dtype.kind == "O" for item in items]
        place = wide.index(True) if True in wide else 0
        raise BadRow(
            f"holds {items[place]!r:.40}, expected numbers of at most 64 bits.",
            _row_of(place, ends),
        )
    return found


def _odd_kind(items: list[Any], ends: np.ndarray) -> BadRow:
    """The error for strings among numbers, numbers among strings, or a None."""
    is_text = isinstance(items[0], str | bytes)
    are_odd = (x is None or isinstance(x, str | bytes) != is_text for x in items)
    place = next(place for place, is_odd in enumerate(are_odd) if is_odd)
    wanted = "strings" if is_text else "numbers"
    what = f"holds {items[place]!r:.40}, expected {wanted} only."
    return BadRow(what, _row_of(place, ends))


def kind_of_values(values: np.ndarray) -> np.dtype:
    """The dtype of values; objects that begin with a string are strings."""
    is_text = values.dtype.kind == "O" and (
        not values.size or isinstance(values.flat[0], str | bytes)
    )
    return np.dtype("U") if is_text else values.dtype


def _row_of(place: int, ends: np.ndarray) -> int:
    return int(np.searchsorted(ends, place, "right"))


def _odd_shape(row: int, found: Any, expected: Any) -> BadRow:
    return BadRow(
        f"has tokens of shape {tuple(found)}, expected {tuple(expected)} as in other "
        "rows. Only the first axis of rows, of tokens, may vary.",
        row,
    )
