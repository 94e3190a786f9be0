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
from keras_mgpu_strategy.inputs.row_kinds import columns_of, is_arrow, rows_of
from keras_mgpu_strategy.sources.array_kinds import OneLength
from keras_mgpu_strategy.sources.matching import declared_shapes, entries_by_name
from keras_mgpu_strategy.sources.nests import leaves, pack, skeleton
from keras_mgpu_strategy.sources.ragged_leaf import no_tokens, rows_of_one_length
from keras_mgpu_strategy.sources.row_errors import BadRow
from keras_mgpu_strategy.sources.row_lists import RowList
from keras_mgpu_strategy.sources.streams import Form
from keras_mgpu_strategy.sources.wrapping import Rearranged
from keras_mgpu_strategy.types import Feeding, Nest, Ragged, Source, has_free_length


def as_rows(x: Any, feeding: Feeding, name: str) -> Any:
    """Returns an input whose rows may differ in length in a form that can be read."""
    if feeding.raw:
        raise ValueError(
            "Received pad= for a model with a preprocessor, which makes rows of one "
            "length itself. Leave out pad=, or set preprocessor=None and pass rows "
            "that are preprocessed."
        )
    if feeding.whole is not None:
        raise ValueError(
            "Received pad= for a model with a predict_step of its own, which is given "
            "rows as they are. Put what it does into the model's call."
        )
    is_one = isinstance(x, tf.RaggedTensor) or is_arrow(x)
    return rows_of(x, name) if is_one else x


def ragged_form(form: Form, input_spec: Nest, name: str) -> Form:
    """Returns a form of inputs, or of elements, whose rows may differ in length."""
    return lambda given: ragged_nest(form(given), input_spec, name)


def with_tokens(source: Source, input_spec: Nest) -> Source:
    """Returns a source of arrays, such as a file, whose rows are read as tokens."""
    paths, shapes = [], declared_shapes(source.spec, input_spec)
    for path, leaf in leaves(source.spec):
        has_tokens = leaf.shape.rank > 1
        if not (_may_vary(shapes[path]) if path in shapes else has_tokens):
            continue
        if not has_tokens:
            raise no_tokens(path, leaf.shape)
        if leaf.shape[1] is not None:
            paths.append(path)
    if not paths:
        return source

    def rows(path: str, leaf: Any) -> Any:
        if path not in paths:
            return leaf
        if isinstance(leaf, np.ndarray):
            return rows_of_one_length(leaf)
        return tf.TensorSpec((None, None, *leaf.shape[2:]), leaf.dtype)

    return Rearranged(
        source,
        lambda nest: pack(skeleton(nest), [rows(*pair) for pair in leaves(nest)]),
    )


def ragged_nest(x: Any, input_spec: Nest, name: str = "x") -> Nest:
    """Returns inputs with `Ragged`, `RowList` or `OneLength` where rows vary."""
    named = entries_by_name(input_spec) if is_declared(input_spec) else None
    x = columns_of(x, named)
    if named is not None:
        return _of_declared(x, input_spec, name)
    found = _of_undeclared(x, name)
    alone = not any(isinstance(leaf, Ragged | RowList) for leaf in _flat(found))
    return map_nest(_of_one_length, found) if alone else found


def _of_declared(x: Any, declared: Nest, name: str) -> Nest:
    entries = entries_by_name(declared)
    if isinstance(x, Mapping):
        known = entries.keys() if entries.keys() <= x.keys() else x.keys()
        path = f"{name}[{{!r}}]".format
        return {
            key: _of_declared(x[key], entries[key], path(key))
            if key in entries
            else rows_of(x[key], path(key))
            for key in known
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
    rows = rows_of(x, name)
    if isinstance(rows, RowList) and rows.widest() != rows.dtype:
        rows.dtype = rows.widest()
    return rows


def _leaf(x: Any, declared: tf.TensorSpec, name: str) -> Any:
    """One input as declared."""
    is_listed = isinstance(x, list | tuple) and len(x) == 1
    if x is None or (is_listed and isinstance(x[0], tf.RaggedTensor)):
        return None if x is None else _leaf(x[0], declared, name)
    rows, shape = rows_of(x, name), declared.shape
    may_vary = _may_vary(shape)
    if not isinstance(rows, Ragged | RowList):
        return OneLength(rows) if may_vary else rows
    if isinstance(rows, RowList) and not rows.lengths.any():
        kind = declared.dtype.as_numpy_dtype
        rows.dtype = np.dtype("U" if declared.dtype == tf.string else kind)
        rows.inner = tuple(size or 0 for size in (shape[2:] if shape.rank else ()))
    if may_vary or getattr(rows, "error", None) is not None:
        return rows
    return _as_declared(rows, declared, name)


def _as_declared(rows: Any, declared: tf.TensorSpec, name: str) -> Any:
    """Rows of the only length that an input declares, in one array."""
    lengths, shape = rows.lengths, declared.shape
    if (lengths != lengths[:1]).any():
        raise ValueError(
            f"{name} has rows of unequal length, but the model input {declared.name!r} "
            f"takes rows of shape {tuple(shape[1:])}, and no others. Make a model with "
            "keras.Input((None, ...)), or pad these rows yourself."
        )
    try:
        flat = rows[0 : len(rows)].packed().values
    except BadRow as bad:
        rows.error = bad
        return rows
    declared_length: Any = shape[1] if shape.rank > 1 else 0
    length = int(lengths[0]) if len(lengths) else declared_length
    return flat.reshape(len(rows), length, *flat.shape[1:])


def _may_vary(shape: tf.TensorShape) -> bool:
    return shape.rank is None or has_free_length(shape)


def _of_one_length(leaf: Any) -> Any:
    has_tokens = len(getattr(leaf, "shape", None) or ()) > 1
    return OneLength(leaf) if has_tokens else leaf


def _flat(nest: Nest) -> list[Any]:
    found: list[Any] = []
    map_nest(found.append, nest)
    return found
