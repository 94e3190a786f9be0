"""Matches received inputs to the inputs that a model declares, by specs alone.

As in Keras: dicts by name, lists and tuples by position, one input with or without a
container. Only an input that is declared optional may be absent.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from keras_mgpu_strategy.element_forms import ABSENT, SparseRows
from keras_mgpu_strategy.sources.casting import Wanted
from keras_mgpu_strategy.sources.nests import is_nest, leaves, pack, skeleton
from keras_mgpu_strategy.types import Nest, Undeclared


class Match(NamedTuple):
    """What a model declares for a leaf, and whether layers get sparse rows sparse."""

    dtype: Wanted = None
    stays_sparse: bool = False


def match_inputs(spec: Nest, input_spec: Nest) -> dict[str, Match]:
    """Returns what a model declares for each leaf, by its path; ValueError if unfit.

    Dict keys that the model does not declare have no match. A last axis of length 1 may
    be missing or extra. Without a declaration, nothing is checked.
    """
    if input_spec is None or isinstance(input_spec, Undeclared):
        match = Match(input_spec, input_spec is not None)
        return dict.fromkeys((path for path, _ in leaves(spec)), match)
    found = {}
    for path, received, declared in _pairs("x", spec, input_spec):
        _check_shape(path, received, declared)
        _check_dtype(path, received, declared)
        stays = getattr(declared, "stays_sparse", False)
        found[path] = Match(declared.dtype, stays)
    return found


def with_declared_axes(spec: Nest, input_spec: Nest) -> Nest:
    """Returns a spec that fits, with the declared lengths of axes of unknown length."""
    declared = declared_shapes(spec, input_spec)

    def known(path: str, leaf: Any) -> Any:
        shape = declared.get(path)
        if shape is None or not getattr(leaf, "shape", None):
            return leaf
        if not leaf.shape[1:].is_compatible_with(shape[1:]):
            return leaf
        row = leaf.shape[1:].merge_with(shape[1:])
        return tf.TensorSpec([leaf.shape[0], *row], leaf.dtype, leaf.name)

    return pack(skeleton(spec), [known(*pair) for pair in leaves(spec)])


def declared_shapes(spec: Nest, input_spec: Nest) -> dict[str, tf.TensorShape]:
    """Returns what a model declares of what it is given, by its path, if anything."""
    if input_spec is None or isinstance(input_spec, Undeclared):
        return {}
    return {path: leaf.shape for path, _, leaf in _pairs("x", spec, input_spec)}


def is_optional(spec: tf.TensorSpec | None) -> bool:
    """Whether the model can do without this input."""
    return getattr(spec, "optional", False)


def entries_by_name(declared: Nest) -> dict[str, Nest]:
    """Returns the declared entries of the outermost container by their names."""
    if isinstance(declared, Mapping):
        return dict(declared)
    if not is_nest(declared):
        return {declared.name or "x": declared}
    return {
        getattr(entry, "name", None) or str(index): entry
        for index, entry in enumerate(declared)
    }


_Pairs = Iterator[tuple[str, tf.TensorSpec, tf.TensorSpec]]


def _pairs(path: str, received: Nest, declared: Nest) -> _Pairs:
    if _is_absent(received):
        _check_optional(path, declared)
    elif isinstance(received, Mapping):
        yield from _by_name(path, received, entries_by_name(declared))
    elif is_nest(received):
        yield from _by_position(path, received, declared)
    elif is_nest(declared):
        names, inner = _names_and_entries(declared)
        if len(inner) != 1:
            raise ValueError(
                f"{path} is one array of {_shown(received)}, expected {len(inner)} "
                f"inputs: {names}. Pass a list with one array for each, in this order, "
                "or a dict of them by name."
            )
        yield from _pairs(path, received, inner[0])
    else:
        rows = received.values if isinstance(received, SparseRows) else received
        yield path, rows, declared


def _is_absent(received: Nest) -> bool:
    return isinstance(received, tuple) and received == ABSENT


def _check_optional(path: str, declared: Nest) -> None:
    needed = [spec.name for _, spec in leaves(declared) if not is_optional(spec)]
    if needed:
        raise ValueError(
            f"{path} is None, but the model needs its inputs {needed}. Expected an "
            "array; only an input made by keras.Input(..., optional=True) may be None."
        )


def _by_name(path: str, received: Nest, expected: dict[str, Nest]) -> _Pairs:
    missing = [name for name in expected if name not in received]
    if missing:
        raise ValueError(
            f"{path} lacks the model inputs {missing}: received the keys "
            f"{list(received)}, expected {list(expected)}. Add the missing arrays, or "
            "None for an input that is optional."
        )
    for name, inner in expected.items():
        yield from _pairs(f"{path}[{name!r}]", received[name], inner)


def _by_position(path: str, received: Nest, declared: Nest) -> _Pairs:
    names, inner = _names_and_entries(declared)
    # Keras flattens such a dict in the order of its sorted keys, not as declared.
    if isinstance(declared, Mapping) and names != sorted(names):
        raise ValueError(
            f"{path} is a {type(received).__name__}, expected a dict with the keys "
            f"{names}: the order of inputs that are declared by name is not known."
        )
    if len(received) != len(inner):
        raise ValueError(
            f"{path} has {len(received)} inputs, expected {len(inner)}: {names}. Pass "
            "one array for each, in this order, or a dict of them by name."
        )
    for index, (mine, theirs) in enumerate(zip(received, inner, strict=True)):
        yield from _pairs(f"{path}[{index}]", mine, theirs)


def _names_and_entries(declared: Nest) -> tuple[list[str], list[Nest]]:
    entries = entries_by_name(declared)
    return list(entries), list(entries.values())


def _check_shape(path: str, received: tf.TensorSpec, declared: tf.TensorSpec) -> None:
    if received.shape.rank is None or declared.shape.rank is None:
        return
    given, wanted = list(received.shape)[1:], list(declared.shape)[1:]
    ours = given
    if len(given) == len(wanted) + 1 and given[-1] in (1, None):
        ours = given[:-1]
    elif len(given) == len(wanted) - 1 and wanted[-1] == 1:
        ours = [*given, 1]
    if tf.TensorShape(ours).is_compatible_with(wanted):
        return
    remedy = ", e.g. by x.reshape(...)."
    if len(given) == len(wanted) - 1:
        remedy = (
            "; if the batch axis is missing, add it (x[np.newaxis] for a single row, "
            ".batch(...) on a tf.data.Dataset)."
        )
    rows = f"Bring the rows into the shape {tuple(wanted)}"
    raise _mismatch(path, received, declared, rows + remedy)


def _check_dtype(path: str, received: tf.TensorSpec, declared: tf.TensorSpec) -> None:
    mine, theirs = received.dtype, declared.dtype
    if mine == tf.string != theirs:
        remedy = "Convert the strings to numbers, e.g. x.astype('float32')."
    elif theirs == tf.string != mine:
        remedy = "Convert the numbers to strings, e.g. x.astype(str)."
    elif mine.is_complex and not theirs.is_complex:
        remedy = "Pass real numbers, e.g. x.real or np.abs(x)."
    else:
        return
    raise _mismatch(path, received, declared, remedy)


def _mismatch(
    path: str, received: tf.TensorSpec, declared: tf.TensorSpec, remedy: str
) -> ValueError:
    name = f" (model input {declared.name!r})" if declared.name else ""
    return ValueError(
        f"{path}{name}: received {_shown(received)}, expected {_shown(declared)}. "
        f"{remedy}"
    )


def _shown(spec: tf.TensorSpec) -> str:
    shape = None if spec.shape.rank is None else tuple(spec.shape)
    return f"shape {shape} and dtype {spec.dtype.name}"
