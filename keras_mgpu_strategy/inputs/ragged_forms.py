"""The form of inputs whose rows may differ in length: which leaves vary, and as what.

An input varies if the model declares its axis of tokens as unknown. If it declares
nothing, lists and ragged tensors vary, and arrays if there are none.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.element_forms import is_nest, map_nest
from keras_mgpu_strategy.inputs.forms import is_declared
from keras_mgpu_strategy.sources.array_kinds import OneLength
from keras_mgpu_strategy.sources.matching import entries_by_name
from keras_mgpu_strategy.sources.row_errors import BadRow, failing
from keras_mgpu_strategy.sources.row_lists import RowList, is_scalar
from keras_mgpu_strategy.types import Nest, Ragged


def ragged_nest(x: Any, input_spec: Nest, name: str = "x") -> Nest:
    """Returns inputs with `Ragged`, `RowList` or `OneLength` where rows vary."""
    if is_declared(input_spec):
        return _of_declared(x, input_spec, name)
    found = _of_undeclared(x, name)
    alone = not any(isinstance(leaf, Ragged | RowList) for leaf in _flat(found))
    return map_nest(_of_one_length, found) if alone else found


def _of_declared(x: Any, declared: Nest, name: str) -> Nest:
    entries = entries_by_name(declared)
    if isinstance(x, Mapping):
        known = entries.keys() if entries.keys() <= x.keys() else x.keys()
        return {
            key: _of_declared(x[key], entries[key], f"{name}[{key!r}]")
            if key in entries
            else x[key]
            for key in x
            if key in known
        }
    if not is_nest(declared):
        return _leaf(x, declared, name)
    if len(entries) == 1:
        return _of_declared(x, next(iter(entries.values())), name)
    if not isinstance(x, list | tuple) or len(x) != len(entries):
        return x  # which is refused when it is matched
    pairs = enumerate(zip(x, entries.values(), strict=True))
    return [_of_declared(*pair, f"{name}[{index}]") for index, pair in pairs]


def _of_undeclared(x: Any, name: str) -> Nest:
    if isinstance(x, Mapping):
        return {key: _of_undeclared(x[key], f"{name}[{key!r}]") for key in x}
    is_listed = isinstance(x, list | tuple) and len(x) > 0
    if is_listed and all(isinstance(item, tf.RaggedTensor) for item in x):
        return [_of_undeclared(item, f"{name}[{i}]") for i, item in enumerate(x)]
    rows = _rows(x, name)
    if isinstance(rows, RowList) and rows.widest() != rows.dtype:
        rows.dtype = rows.widest()
    return rows


def _leaf(x: Any, declared: tf.TensorSpec, name: str) -> Any:
    """One input as declared."""
    is_listed = isinstance(x, list | tuple) and len(x) == 1
    if x is None or (is_listed and isinstance(x[0], tf.RaggedTensor)):
        return None if x is None else _leaf(x[0], declared, name)
    rows, shape = _rows(x, name), declared.shape
    may_vary = shape.rank is None or (shape.rank > 1 and shape[1] is None)
    if not isinstance(rows, Ragged | RowList):
        return OneLength(rows) if may_vary else rows
    if isinstance(rows, RowList) and not rows.lengths.any():
        kind = declared.dtype.as_numpy_dtype
        rows.dtype = np.dtype("U" if declared.dtype == tf.string else kind)
        rows.inner = tuple(size or 0 for size in (shape[2:] if shape.rank else ()))
    if may_vary:
        return rows
    lengths = rows.lengths
    if (lengths != lengths[:1]).any():
        raise ValueError(
            f"{name} has rows of unequal length, but the model input {declared.name!r} "
            f"takes rows of shape {tuple(shape[1:])}, and no others. Make a model with "
            "keras.Input((None, ...)), or pad these rows yourself."
        )
    flat = rows[0 : len(rows)].packed().values
    declared_length: Any = shape[1] if shape.rank > 1 else 0
    length = int(lengths[0]) if len(lengths) else declared_length
    return flat.reshape(len(rows), length, *flat.shape[1:])


def _rows(x: Any, name: str) -> Any:
    """Rows that may differ in length as such, other inputs as they are."""
    if isinstance(x, tf.RaggedTensor):
        return _of_tensor(x, name)
    if isinstance(x, np.ndarray) and x.dtype.kind == "O" and x.ndim == 1:
        x = x.tolist()
    if not isinstance(x, list | tuple):
        return x
    if x and is_scalar(x[0]) and all(map(is_scalar, x)):
        texts = isinstance(x[0], str | bytes)
        return np.array(x, object) if texts else np.asarray(x)
    try:
        return RowList(x)
    except BadRow as bad:
        failing(name, 0)(bad.index, str(bad))


def _of_tensor(x: Any, name: str) -> Ragged:
    with tf.device("CPU:0"):
        if x.ragged_rank > 1:
            raise ValueError(
                f"{name} is a RaggedTensor of shape {x.shape}, expected one axis that "
                "varies, the first after the batch axis. Pad the others, e.g. by "
                "x.to_tensor()."
            )
        return Ragged(x.values.numpy(), x.row_splits.numpy().astype(np.int64))


def _of_one_length(leaf: Any) -> Any:
    has_tokens = len(getattr(leaf, "shape", None) or ()) > 1
    return OneLength(leaf) if has_tokens else leaf


def _flat(nest: Nest) -> list[Any]:
    found: list[Any] = []
    map_nest(found.append, nest)
    return found
