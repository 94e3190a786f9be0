"""Which columns of a table go to which input of a model.

Guarantees:

* A column is chosen by its name, by the user, or because nothing else fits.
* A column `row`, which this package's own files have, is never chosen unless asked for.
  Neither are those that a reader calls hidden: pandas indices, folder keys.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

import tensorflow as tf

from keras_mgpu_strategy.formats.choosing import (
    Declared,
    by_input,
    check_known,
    declared_inputs,
)
from keras_mgpu_strategy.formats.paths import shorten
from keras_mgpu_strategy.types import Nest

Columns: TypeAlias = (
    str | Sequence[str] | Mapping[str, str] | Mapping[str, Sequence[str]] | None
)
NUMBER, TEXT, LIST, EMPTY = "number", "text", "list", "empty"
"""Kinds of columns: a number or a string per row, lists of these, or no value at all.
Any other kind is the name of a type that cannot be read."""

_READABLE = (NUMBER, TEXT, LIST, EMPTY)


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """The columns of one model input.

    Args:
        input: What the model declares.
        columns: Names in the table.
        is_stacked: Whether the columns become a last axis, one value each; otherwise
            there is one column, which is the input.
    """

    input: Declared
    columns: tuple[str, ...]
    is_stacked: bool = False


def choose_columns(
    kinds: Mapping[str, str],
    given: Columns,
    input_spec: Nest,
    where: object,
    hidden: Collection[str] = (),
    remedy: str = "Pass columns=[...], or a dict of columns by input.",
) -> list[Choice]:
    """Chooses the columns for each input of a model.

    Args:
        kinds: The table's columns in order, each with its kind.
        given: What the user asks for: names to be stacked for a model with one input,
            one name per input in the order of the model, or a dict of a name or names
            by input; None to choose by the names of the inputs. For a model with one
            input and no column of that name, all numeric columns are chosen if there
            are as many as its features, or else the one with lists.
        input_spec: What the model declares, or None.
        where: Names the table in messages.
        hidden: Columns that are chosen by name only.
        remedy: What to do if the choice is unclear.

    Returns:
        The columns, in the order of `choosing.declared_inputs`.

    Raises:
        ValueError: They are not in the table, do not fit, or the choice is unclear.
    """
    inputs = declared_inputs(input_spec)
    if given is not None:
        choices = _as_given(given, inputs, input_spec, where)
    else:
        choices = _by_name(kinds, inputs, where, {"row", *hidden}, remedy)
    for choice in choices:
        check_known(choice.columns, list(kinds), f"{where}, columns")
        _check_kinds(choice, kinds, where)
    return choices


def _as_given(
    given: Columns, inputs: list[Declared], input_spec: Nest, where: object
) -> list[Choice]:
    if len(inputs) == 1 and not isinstance(given, Mapping):
        return [_choice(inputs[0], given)]
    named = by_input(given, inputs, input_spec, f"{where}, columns")
    return [_choice(item, named[item.name]) for item in inputs]


def _choice(item: Declared, given: object) -> Choice:
    if isinstance(given, str):
        return Choice(item, (given,))
    names = tuple(given) if isinstance(given, Sequence) else ()
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"Received columns={given!r}, expected names of columns: str, or a list of "
            "one or more."
        )
    return Choice(item, names, is_stacked=True)


def _by_name(
    kinds: Mapping[str, str],
    inputs: list[Declared],
    where: object,
    hidden: Collection[str],
    remedy: str,
) -> list[Choice]:
    missing = [item.name for item in inputs if item.name not in kinds]
    if not missing:
        return [Choice(item, (item.name,)) for item in inputs]
    if len(inputs) == 1:
        return [_by_shape(kinds, inputs[0], where, hidden, remedy)]
    raise ValueError(
        f"{where} lacks columns for the model inputs {missing}: received "
        f"{shorten(kinds)}. {remedy}"
    )


def _by_shape(
    kinds: Mapping[str, str],
    item: Declared,
    where: object,
    hidden: Collection[str],
    remedy: str,
) -> Choice:
    """The columns for the only input of a model, if none has its name."""
    wanted = TEXT if item.spec is not None and item.spec.dtype == tf.string else NUMBER
    seen = {name: kind for name, kind in kinds.items() if name not in hidden}
    plain = [name for name in seen if seen[name] in (wanted, EMPTY)]
    lists = [name for name in seen if seen[name] == LIST]
    num_features = _num_features(item)
    if plain and len(plain) == num_features:
        return Choice(item, tuple(plain), is_stacked=True)
    if len(lists) == 1 and num_features != 1:
        return Choice(item, (lists[0],))
    if len(seen) == 1 and (len(kinds) == 1 or num_features is None):
        return Choice(item, tuple(seen))
    expected = "its" if num_features is None else f"{num_features}"
    others = [name for name in kinds if name in hidden]
    unasked = f"; taken by name alone: {shorten(others)}" if others else ""
    raise ValueError(
        f"{where} has no column of the name of the model's input, {item.name!r}, and "
        f"{len(plain)} columns of {wanted}s to choose from, expected {expected}: "
        f"received {_listed(seen) or 'none'}{unasked}. {remedy}"
    )


def _listed(kinds: Mapping[str, str]) -> str:
    """Names of columns, with the kinds of those that are not numbers."""
    return shorten(
        name if kind == NUMBER else f"{name} ({kind})" for name, kind in kinds.items()
    )


def _num_features(item: Declared) -> int | None:
    """Values in a row that is a vector or a number; None for anything else."""
    shape = item.row_shape
    if shape is None or len(shape) > 1:
        return None
    return shape[0] if shape else 1


def _check_kinds(choice: Choice, kinds: Mapping[str, str], where: object) -> None:
    chosen = {name: kinds[name] for name in choice.columns}
    found = set(chosen.values()) - {EMPTY}
    if not found <= set(_READABLE):
        odd = {name: kind for name, kind in chosen.items() if kind not in _READABLE}
        raise ValueError(
            f"{where}, columns {_listed(odd)}: expected numbers, bools, strings or "
            "lists of these. Convert them first."
        )
    if len(choice.columns) > 1 and (LIST in found or len(found) > 1):
        raise ValueError(
            f"{where}: columns {_listed(chosen)} are stacked for one input, "
            "expected one number, or one string, a row in each."
        )
    num_features, num_columns = _num_features(choice.input), len(choice.columns)
    is_narrow = LIST not in found and choice.input.row_shape is not None
    if is_narrow and num_columns != (num_features or num_columns):
        raise ValueError(
            f"{where}: {num_columns} columns ({_listed(chosen)}) for the model "
            f"input {choice.input.name!r}, which takes {num_features} features."
        )
