"""Which columns of a table go to which input of a model, and how they become rows.

Columns are chosen by name, or because nothing else fits. A column `row`, and what a
reader calls hidden (pandas indices, folder keys), is taken only if asked for.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.formats import choosing
from keras_mgpu_strategy.formats.paths import shorten
from keras_mgpu_strategy.sources.casting import Cast, cast_for
from keras_mgpu_strategy.sources.row_errors import Fail, failing
from keras_mgpu_strategy.sources.safe_casts import common_dtype
from keras_mgpu_strategy.types import Nest

Columns: TypeAlias = (
    str | Sequence[str] | Mapping[str, str] | Mapping[str, Sequence[str]] | None
)
NUMBER, TEXT, LIST, EMPTY = "number", "text", "list", "empty"
"""Kinds of columns: a number or a string per row, lists of these, or no value at all.
Any other kind is the name of a type that cannot be read."""


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """The columns of one model input, stacked along a last axis or a single one."""

    input: choosing.Declared
    columns: tuple[str, ...]
    is_stacked: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Form:
    """How the columns of one input become its rows."""

    row_shape: tuple[int, ...]
    cast: Cast
    columns: tuple[str, ...]

    @property
    def spec(self) -> tf.TensorSpec:
        """The rows with the batch axis unknown."""
        return tf.TensorSpec((None, *self.row_shape), self.cast.dtype)

    def join(
        self, read: Callable[[str, Fail], np.ndarray], first: int, where: object
    ) -> np.ndarray:
        """Returns `(rows, *row_shape)`, from row `first` on; raises BadRow."""
        cells = []
        for name in self.columns:
            fail = failing(f"{where}, column {name!r}", first)
            cells.append(self.cast.convert(read(name, fail), fail))
        stacked = np.stack(cells, axis=1) if len(cells) > 1 else cells[0]
        return stacked.reshape(len(stacked), *self.row_shape)


def choose_columns(
    kinds: Mapping[str, str],
    given: Columns,
    input_spec: Nest,
    where: object,
    hidden: Collection[str] = (),
    remedy: str = "Pass columns=[...], or a dict of columns by input.",
) -> list[Choice]:
    """Chooses columns in the order of `declared_inputs`; `hidden` ones by name only."""
    inputs = choosing.declared_inputs(input_spec)
    missing = [item.name for item in inputs if item.name not in kinds]
    if given is not None and len(inputs) == 1 and not isinstance(given, Mapping):
        choices = [_as_given(inputs[0], given)]
    elif given is not None:
        named = choosing.by_input(given, inputs, input_spec, f"{where}, columns")
        choices = [_as_given(item, named[item.name]) for item in inputs]
    elif not missing:
        choices = [Choice(item, (item.name,)) for item in inputs]
    elif len(inputs) == 1:
        choices = [_by_shape(kinds, inputs[0], where, {"row", *hidden}, remedy)]
    else:
        raise ValueError(
            f"{where} lacks columns for the model inputs {missing}: received "
            f"{shorten(kinds)}. {remedy}"
        )
    for choice in choices:
        choosing.check_known(choice.columns, list(kinds), f"{where}, columns")
        _check_kinds(choice, kinds, where)
    return choices


def form_for(
    choice: Choice,
    cells: Sequence[tuple[np.dtype | None, tuple[int | None, ...]]],
    missing_as_nan: bool,
) -> Form:
    """Returns an input's form, by dtype (None: no value) and lengths of its cells."""
    lengths, wanted = cells[0][1], choice.input.wanted
    is_stack = len(cells) > 1 or (choice.is_stacked and not lengths)
    dtypes = [dtype for dtype, _ in cells if dtype is not None]
    is_float = isinstance(wanted, tf.DType) and wanted.is_floating
    if missing_as_nan and (is_float or not isinstance(wanted, tf.DType)):
        dtypes = [np.dtype(np.float64) if d.kind in "biu" else d for d in dtypes]
    if not dtypes:
        common = np.dtype("S" if wanted == tf.string else np.float64)
    elif is_float:
        common = np.result_type(*dtypes)
    else:
        common = common_dtype(dtypes)
    cast = cast_for(common, ", ".join(choice.columns), wanted)
    shape = _row_shape(choice, (len(cells),) if is_stack else lengths)
    return Form(shape, cast, choice.columns)


def _as_given(item: choosing.Declared, given: object) -> Choice:
    if isinstance(given, str):
        return Choice(item, (given,))
    names = tuple(given) if isinstance(given, Sequence) else ()
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"Received columns={given!r}, expected names of columns: str, or a list of "
            "one or more."
        )
    return Choice(item, names, is_stacked=True)


def _by_shape(
    kinds: Mapping[str, str],
    item: choosing.Declared,
    where: object,
    hidden: Collection[str],
    remedy: str,
) -> Choice:
    """The columns for the only input of a model, if none has its name."""
    wanted = TEXT if item.spec is not None and item.spec.dtype == tf.string else NUMBER
    seen = {name: kind for name, kind in kinds.items() if name not in hidden}
    plain = [name for name in seen if seen[name] in (wanted, EMPTY)]
    lists = [name for name in seen if seen[name] == LIST]
    num_features = item.num_features
    if plain and len(plain) == num_features:
        return Choice(item, tuple(plain), is_stacked=True)
    if len(lists) == 1 and num_features != 1:
        return Choice(item, (lists[0],))
    if len(seen) == 1 and (len(kinds) == 1 or num_features is None):
        return Choice(item, tuple(seen))
    others = [name for name in kinds if name in hidden]
    unasked = f"; taken by name alone: {shorten(others)}" if others else ""
    raise ValueError(
        f"{where} has no column named after the model's input, {item.name!r}, and "
        f"{len(plain)} columns of {wanted}s, expected {num_features or 'one'}: "
        f"received {_listed(seen) or 'none'}{unasked}. "
        f"{remedy}"
    )


def _listed(kinds: Mapping[str, str]) -> str:
    return shorten(
        name if kind == NUMBER else f"{name} ({kind})" for name, kind in kinds.items()
    )


def _check_kinds(choice: Choice, kinds: Mapping[str, str], where: object) -> None:
    chosen = {name: kinds[name] for name in choice.columns}
    found = set(chosen.values()) - {EMPTY}
    if unreadable := found - {NUMBER, TEXT, LIST}:
        odd = {name: kind for name, kind in chosen.items() if kind in unreadable}
        raise ValueError(
            f"{where}, columns {_listed(odd)}: expected numbers, bools, strings or "
            "lists of these. Convert them first."
        )
    if len(choice.columns) > 1 and (LIST in found or len(found) > 1):
        raise ValueError(
            f"{where}: columns {_listed(chosen)} are stacked for one input, "
            "expected one number, or one string, a row in each."
        )
    num_features, num_columns = choice.input.num_features, len(choice.columns)
    is_narrow = LIST not in found and choice.input.row_shape is not None
    if is_narrow and num_columns != (num_features or num_columns):
        raise ValueError(
            f"{where}: {num_columns} columns ({_listed(chosen)}) for the model "
            f"input {choice.input.name!r}, which takes {num_features} features."
        )


def _row_shape(choice: Choice, natural: tuple[int | None, ...]) -> tuple[int, ...]:
    """The shape that the model declares, if it holds as many values."""
    declared = choice.input.row_shape
    found = tuple(length or 0 for length in natural)
    if declared is None:
        return found
    known = tuple(size or 0 for size in declared)
    # Without a row, the lengths of lists are unknown.
    fits = None not in declared and math.prod(known) == math.prod(found)
    return known if fits or None in natural else found
