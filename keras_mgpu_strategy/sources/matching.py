"""Matches received inputs to the inputs that a model declares.

Guarantees:

* Inputs are matched as in Keras: dicts by name, lists and tuples by position, one
  input with or without a container around it.
* Only an input that is declared optional may be absent.
* Nothing is read: only specs are compared, without the batch axis.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import tensorflow as tf

from keras_mgpu_strategy.element_forms import ABSENT, SparseRows
from keras_mgpu_strategy.sources.casting import Wanted
from keras_mgpu_strategy.sources.nests import is_nest, leaves
from keras_mgpu_strategy.types import Nest, Undeclared


class _Pair(NamedTuple):
    path: str
    received: tf.TensorSpec
    declared: tf.TensorSpec


def check_inputs(spec: Nest, input_spec: Nest) -> None:
    """Checks what a source yields against what a model takes.

    Keys of a dict that the model does not declare are allowed. A last axis of
    length 1 may be missing or extra, as in functional models.

    Args:
        spec: Nest of `tf.TensorSpec` of a source; None checks nothing.
        input_spec: Nest of named `tf.TensorSpec` that the model declares; None or
            `Undeclared` checks nothing.

    Raises:
        ValueError: If inputs are missing or extra, or if a shape or a kind of dtype
            does not fit.
    """
    if spec is not None:
        wanted_dtypes(spec, input_spec)


def wanted_dtypes(spec: Nest, input_spec: Nest) -> dict[str, Wanted]:
    """Returns the dtype that a model declares for each leaf, by its path.

    Args:
        spec: Nest of `tf.TensorSpec` of a source.
        input_spec: What the model declares, as for `check_inputs`.

    Raises:
        ValueError: As `check_inputs` does.
    """
    if input_spec is None or isinstance(input_spec, Undeclared):
        return {path: input_spec for path, _ in leaves(spec)}
    pairs = list(_pairs("x", spec, input_spec))
    for pair in pairs:
        _check_shape(pair)
        _check_dtype(pair)
    return {pair.path: pair.declared.dtype for pair in pairs}


def stay_sparse(spec: Nest, input_spec: Nest) -> set[str]:
    """Returns the paths of the leaves that, if sparse, reach layers sparse.

    Keras makes inputs dense that a functional or Sequential model declares dense.

    Args:
        spec: Nest of `tf.TensorSpec` of a source.
        input_spec: What the model declares, as for `check_inputs`.
    """
    if input_spec is None:
        return set()
    if isinstance(input_spec, Undeclared):
        return {path for path, _ in leaves(spec)}
    pairs = _pairs("x", spec, input_spec)
    return {pair.path for pair in pairs if getattr(pair.declared, _STAYS, False)}


def _pairs(path: str, received: Nest, declared: Nest) -> Iterator[_Pair]:
    for applies, match in _MATCHES:
        if applies(received, declared):
            yield from match(path, received, declared)
            return
    rows = received.values if isinstance(received, SparseRows) else received
    yield _Pair(path, rows, declared)


def _is_absent(received: Nest, declared: Nest) -> bool:
    return received == ABSENT and isinstance(received, tuple)


def _absent(path: str, received: Nest, declared: Nest) -> Iterator[_Pair]:
    needed = [spec.name for _, spec in leaves(declared) if not is_optional(spec)]
    if needed:
        raise ValueError(
            f"{path} is None, but the model needs its inputs {needed}. Expected an "
            "array; only an input made by keras.Input(..., optional=True) may be None."
        )
    yield from ()


def is_optional(spec: tf.TensorSpec | None) -> bool:
    """Whether the model can do without this input."""
    return getattr(spec, "optional", False)


def _by_name(path: str, received: Nest, declared: Nest) -> Iterator[_Pair]:
    expected = entries_by_name(declared)
    missing = [name for name in expected if name not in received]
    if missing:
        raise ValueError(
            f"{path} lacks the model inputs {missing}: received the keys "
            f"{list(received)}, expected {list(expected)}. Add the missing arrays, or "
            "None for an input that is optional."
        )
    for name, inner in expected.items():
        yield from _pairs(f"{path}[{name!r}]", received[name], inner)


def _by_position(path: str, received: Nest, declared: Nest) -> Iterator[_Pair]:
    names = list(entries_by_name(declared))
    inner = list(entries_by_name(declared).values())
    if isinstance(declared, Mapping):
        _check_positions_known(path, received, names)
    if len(received) != len(inner):
        raise ValueError(
            f"{path} has {len(received)} inputs, expected {len(inner)}: {names}. Pass "
            "one array for each, in this order, or a dict of them by name."
        )
    for index, (mine, theirs) in enumerate(zip(received, inner, strict=True)):
        yield from _pairs(f"{path}[{index}]", mine, theirs)


def _check_positions_known(path: str, received: Nest, names: list[str]) -> None:
    # Keras flattens such a dict in the order of its sorted keys, not as declared.
    if len(names) > 1 and names != sorted(names):
        raise ValueError(
            f"{path} is a {type(received).__name__}, expected a dict with the keys "
            f"{names}: the order of inputs that are declared by name is not known."
        )


def _single(path: str, received: Nest, declared: Nest) -> Iterator[_Pair]:
    inner = list(entries_by_name(declared).values())
    if len(inner) != 1:
        names = list(entries_by_name(declared))
        raise ValueError(
            f"{path} is one array of {_shown(received)}, expected {len(inner)} inputs: "
            f"{names}. Pass a list with one array for each, in this order, or a dict "
            "of them by name."
        )
    yield from _pairs(path, received, inner[0])


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


_STAYS = "stays_sparse"
_MATCHES = (
    (_is_absent, _absent),
    (lambda received, declared: isinstance(received, Mapping), _by_name),
    (lambda received, declared: is_nest(received), _by_position),
    (lambda received, declared: is_nest(declared), _single),
)


def _check_shape(pair: _Pair) -> None:
    mine, theirs = pair.received.shape, pair.declared.shape
    if mine.rank is None or theirs.rank is None:
        return
    given, wanted = list(mine)[1:], list(theirs)[1:]
    ours = _adjusted(given, wanted)
    fits = len(ours) == len(wanted) and all(
        a is None or b is None or a == b for a, b in zip(ours, wanted, strict=True)
    )
    if not fits:
        raise _mismatch(pair, _shape_remedy(given, wanted))


def _adjusted(mine: list, theirs: list) -> list:
    """Adds or drops a last axis of length 1, as functional models do."""
    if len(mine) == len(theirs) + 1 and mine[-1] in (1, None):
        return mine[:-1]
    if len(mine) == len(theirs) - 1 and theirs[-1] == 1:
        return [*mine, 1]
    return mine


def _shape_remedy(mine: list, theirs: list) -> str:
    rows = f"Bring the rows into the shape {tuple(theirs)}"
    if len(mine) == len(theirs) - 1:
        return (
            f"{rows}; if the batch axis is missing, add it (x[np.newaxis] for a single "
            "row, .batch(...) on a tf.data.Dataset)."
        )
    return f"{rows}, e.g. by x.reshape(...)."


def _check_dtype(pair: _Pair) -> None:
    mine, theirs = pair.received.dtype, pair.declared.dtype
    for is_kind, remedy_with, remedy_without in _KINDS:
        if is_kind(mine) and not is_kind(theirs):
            raise _mismatch(pair, remedy_with)
        if is_kind(theirs) and not is_kind(mine) and remedy_without:
            raise _mismatch(pair, remedy_without)


_KINDS = (
    (
        lambda dtype: dtype == tf.string,
        "Convert the strings to numbers, e.g. x.astype('float32').",
        "Convert the numbers to strings, e.g. x.astype(str).",
    ),
    (
        lambda dtype: dtype.is_complex,
        "Pass real numbers, e.g. x.real or np.abs(x).",
        "",
    ),
)


def _mismatch(pair: _Pair, remedy: str) -> ValueError:
    name = f" (model input {pair.declared.name!r})" if pair.declared.name else ""
    return ValueError(
        f"{pair.path}{name}: received {_shown(pair.received)}, expected "
        f"{_shown(pair.declared)}. {remedy}"
    )


def _shown(spec: tf.TensorSpec) -> str:
    shape = None if spec.shape.rank is None else tuple(spec.shape)
    return f"shape {shape} and dtype {spec.dtype.name}"
