"""Which part of a file goes to which input of a model.

Names decide; a guess is made only if there is just one choice. Optional inputs may be
left out if the required ones are found by their names.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from keras_mgpu_strategy.element_forms import ABSENT
from keras_mgpu_strategy.formats.paths import shorten
from keras_mgpu_strategy.formats.registry import format_of
from keras_mgpu_strategy.sources.casting import Wanted
from keras_mgpu_strategy.sources.matching import is_optional
from keras_mgpu_strategy.sources.nests import is_nest, pack, skeleton
from keras_mgpu_strategy.types import Nest, Undeclared

Names: TypeAlias = str | Sequence[str] | Mapping[str, str] | None


class Declared(NamedTuple):
    """One input of a model: what it declares, if it does, and the dtype it accepts."""

    name: str
    spec: tf.TensorSpec | None
    wanted: Wanted = None

    @property
    def row_shape(self) -> tuple[int | None, ...] | None:
        """The declared shape of one row; None if unknown."""
        if self.spec is None or not self.spec.shape.rank:
            return None
        return tuple(self.spec.shape[1:])

    @property
    def num_features(self) -> int | None:
        """Values in a row that is a vector or a number; None for anything else."""
        shape = self.row_shape
        if shape is None or len(shape) > 1:
            return None
        return shape[0] if shape else 1


def declared_inputs(input_spec: Nest) -> list[Declared]:
    """Returns the inputs of a model, in the order of `nests.leaves`."""
    if not _declares(input_spec):
        return [Declared("x", None, input_spec)]
    return list(_walk(input_spec, "x"))


def present_inputs(input_spec: Nest, available: Collection[str], given: Any) -> Nest:
    """Leaves out optional inputs, as empty tuples, if names show all required ones."""
    if not _declares(input_spec) or not isinstance(given, Mapping | None):
        return input_spec
    inputs, names = declared_inputs(input_spec), available if given is None else given
    flat = [
        ABSENT if is_optional(item.spec) and item.name not in names else item.spec
        for item in inputs
    ]
    needed = [item.name for item in inputs if not is_optional(item.spec)]
    is_named = set(needed) <= set(names) and any(spec != ABSENT for spec in flat)
    return in_structure(input_spec, flat) if is_named else input_spec


def in_structure(input_spec: Nest, flat: list[Any]) -> Nest:
    """Returns one value per input in the structure that the model declares."""
    return pack(skeleton(input_spec), flat) if _declares(input_spec) else flat[0]


def choose(
    available: Collection[str], given: Names, input_spec: Nest, what: str
) -> list[str]:
    """Chooses one of several named arrays for each input, see `declared_inputs`."""
    inputs = declared_inputs(input_spec)
    names = [item.name for item in inputs]
    if given is not None:
        named = by_input(given, inputs, input_spec, what)
        check_known(named.values(), available, what)
        return [named[name] for name in names]
    if _declares(input_spec) and set(names) <= set(available):
        return names
    if len(inputs) == 1 and len(available) == 1:
        return list(available)
    expected = "one alone, as the model declares no names"
    if _declares(input_spec):
        expected = f"the model inputs {names}"
    raise ValueError(
        f"{what}: received {shorten(sorted(available)) or 'none'}; expected "
        f"{expected}. Name what to read."
    )


def by_input(
    given: Any, inputs: list[Declared], input_spec: Nest, what: str
) -> dict[str, Any]:
    """Returns what the user gave by input; a `ValueError` if it is not one for each."""
    names = [item.name for item in inputs]
    listed = [given] if isinstance(given, str) else list(given)
    if isinstance(given, Mapping):
        listed, received = list(given.values()), list(given)
    elif len(names) > 1 and isinstance(input_spec, Mapping):
        raise ValueError(
            f"{what}: received {listed!r}, expected a dict with the keys {names}: the "
            "order of inputs that are declared by name is not known."
        )
    else:
        received = names
    if len(listed) != len(received) or set(received) != set(names):
        raise ValueError(
            f"{what}: received {given!r}, expected one for each model input {names}, "
            "in this order, or a dict of them by input."
        )
    return dict(zip(received, listed, strict=True))


def check_known(chosen: Iterable[str], available: Collection[str], what: str) -> None:
    """Raises a `ValueError` for names that the file does not hold."""
    missing = [name for name in chosen if name not in available]
    if missing:
        raise ValueError(
            f"{what}: there is no {shorten(map(repr, missing))}; received "
            f"{shorten(available) or 'none'}. Check the names.{as_file(missing)}"
        )


def as_file(names: Iterable[str]) -> str:
    """The remedy if one of the names that were not found is that of a file."""
    found = (name for name in names if format_of(name) or os.path.exists(name))
    name = next(found, None)
    return f" For labels in a file, pass pathlib.Path({name!r})." if name else ""


def _declares(input_spec: Nest) -> bool:
    return input_spec is not None and not isinstance(input_spec, Undeclared)


def _walk(nest: Nest, name: str, *, is_key: bool = False) -> Iterator[Declared]:
    """Users know an input by its key in a dict, whatever the tensor's name."""
    if isinstance(nest, Mapping):
        for key in sorted(nest):
            yield from _walk(nest[key], key, is_key=True)
    elif is_nest(nest):
        for index, entry in enumerate(nest):
            yield from _walk(entry, str(index))
    else:
        yield Declared(name if is_key else nest.name or name, nest, nest.dtype)
