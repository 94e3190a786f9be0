"""Lists of rows that may differ in length, made into arrays some rows at a time.

No loop of Python runs over tokens. What an array of rows must be like is checked for
all rows at once; tokens of lists when they are read.
"""

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from types import NoneType
from typing import Any, NoReturn

import numpy as np

from keras_mgpu_strategy.sources.row_errors import BadRow, Fail, failing_tokens
from keras_mgpu_strategy.sources.safe_casts import common_dtype
from keras_mgpu_strategy.types import Ragged

_MASKED = "has a mask, expected none. Pass x.filled(value)."
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
        if not self._are_lists:
            if kinds != {np.ndarray} or not all(row.ndim for row in rows):
                rows = [*map(_row, itertools.count(), rows)]
            rows, self.inner, self.dtype = _checked(rows)
        self._rows = rows
        self.lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        if self._are_lists:
            first = int((self.lengths > 0).argmax()) if len(rows) else 0
            example = _tokens(rows[first : first + 1], self.lengths[first : first + 1])
            self.inner, self.dtype = example.shape[1:], kind_of_values(example)

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
        if not lengths.any():
            values = np.empty((0, *self.inner), self.dtype)
        elif not self._are_lists:
            values = np.concatenate(some)
        else:
            values = _tokens(some, lengths)
            if values.shape[1:] != self.inner:
                row = int(np.argmax(lengths > 0))
                _fail(row, _odd_shape(values.shape[1:], self.inner))
        return Ragged.of_lengths(values, lengths)

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


def _fail(row: int, what: str) -> NoReturn:
    raise BadRow(what, row)


def _row(index: int, row: Any) -> np.ndarray:
    if is_scalar(row):
        _fail(
            index,
            f"is {row!r:.40} ({type(row).__name__}), expected a list or an array of "
            "tokens, as in other rows.",
        )
    if isinstance(row, list | tuple):
        return _tokens([row], np.array([len(row)]))
    if not hasattr(row, "__array__"):
        _fail(index, f"is {type(row).__name__}, expected a list or an array.")
    if isinstance(row, np.ma.MaskedArray):
        _fail(index, _MASKED)
    return np.asarray(row)


def _checked(
    rows: Sequence[np.ndarray],
) -> tuple[Sequence[np.ndarray], tuple[int, ...], np.dtype]:
    """Arrays, the shape of their tokens and their common dtype."""
    first = next((row for row in rows if row.size), rows[0])
    inner, shapes = first.shape[1:], {row.shape[1:] for row in rows}
    if shapes != {inner}:
        for index, row in enumerate(rows):
            if row.shape[1:] != inner and len(row):
                _fail(index, _odd_shape(row.shape[1:], inner))
    dtypes = {row.dtype for row in rows if row.size} or {first.dtype}
    if shapes != {inner} or {row.dtype for row in rows} != dtypes:
        # Of what is empty, neither shape nor dtype counts.
        none = np.empty((0, *inner), first.dtype)
        rows = [row if row.size else none for row in rows]
    if len(dtypes) == 1:
        return rows, inner, kind_of_values(first)
    for index, row in enumerate(rows):  # NumPy would make numbers strings
        if (row.dtype.kind in "UST") != (rows[0].dtype.kind in "UST"):
            what = (
                f"has dtype={row.dtype}, expected {rows[0].dtype} as in the first row"
            )
            _fail(index, f"{what}, or another of its kind.")
    common = common_dtype([*dtypes])
    if np.result_type(*dtypes) != common:  # a float, which would round integers
        rows = [row.astype(object) for row in rows]
    return rows, inner, common


def _tokens(rows: Iterable[Any], lengths: np.ndarray) -> np.ndarray:
    """All tokens of lists, one after another."""
    items = [*itertools.chain.from_iterable(rows)]
    return _array(items, failing_tokens(np.cumsum(lengths), _fail))


def _array(items: list[Any], fail: Fail) -> np.ndarray:
    """An array of items; `fail` gets the place of one that does not fit."""
    kinds = {*map(type, items)}
    if kinds and kinds <= {list, tuple}:
        sizes = np.fromiter(map(len, items), np.int64, len(items))
        size, place = int(sizes[0]), int((sizes != sizes[0]).argmax())
        if place:
            fail(place, _odd_shape((int(sizes[place]),), (size,)))
        flat = [*itertools.chain.from_iterable(items)]
        values = _array(flat, lambda place, what: fail(place // size, what))
        return values.reshape(len(items), size, *values.shape[1:])
    if any(issubclass(kind, str | bytes | NoneType) for kind in kinds):
        return _texts(items, kinds, fail)
    if any(issubclass(kind, np.ma.MaskedArray) for kind in kinds):
        fail([isinstance(x, np.ma.MaskedArray) for x in items].index(True), _MASKED)
    try:
        found = np.array(items)
    except (TypeError, ValueError):
        shapes = [np.shape(item) for item in items]
        place = next((i for i, s in enumerate(shapes) if s != shapes[0]), 0)
        fail(place, _odd_shape(shapes[place], shapes[0]))
    if found.dtype.kind == "O":  # integers beyond 64 bits, or no numbers at all
        are_wide = [np.asarray(item).dtype.kind == "O" for item in items]
        place = are_wide.index(True) if True in are_wide else 0
        fail(place, f"holds {items[place]!r:.40}, expected numbers of at most 64 bits.")
    return found


def _texts(items: list[Any], kinds: set[type], fail: Fail) -> np.ndarray:
    """Strings; `fail` gets a number among them, a string among numbers, or a None."""
    if not all(issubclass(kind, str | bytes) for kind in kinds):
        is_text = isinstance(items[0], str | bytes)
        are_odd = [x is None or isinstance(x, str | bytes) != is_text for x in items]
        place, wanted = are_odd.index(True), "strings" if is_text else "numbers"
        fail(place, f"holds {items[place]!r:.40}, expected {wanted} only.")
    found = np.empty(len(items), object)
    found[:] = items
    return found


def kind_of_values(values: np.ndarray) -> np.dtype:
    """The dtype of values; objects that begin with a string are strings."""
    is_text = values.dtype.kind == "O" and (
        not values.size or isinstance(values.flat[0], str | bytes)
    )
    return np.dtype("U") if is_text else values.dtype


def _odd_shape(found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    return (
        f"has tokens of shape {found}, expected {expected} as in other rows. Only the "
        "first axis of rows, of tokens, may vary."
    )
