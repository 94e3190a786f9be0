"""The form of inputs whose rows may differ in length: which leaves vary, and as what.

An input varies if the model declares its axis of tokens as unknown. If it declares
nothing, lists and ragged tensors vary, and arrays if there are none.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.element_forms import is_nest, map_nest
from keras_mgpu_strategy.formats.parquet.ragged_columns import rows_of_column
from keras_mgpu_strategy.inputs.forms import is_declared
from keras_mgpu_strategy.sources import frames
from keras_mgpu_strategy.sources.array_kinds import OneLength
from keras_mgpu_strategy.sources.matching import declared_shapes, entries_by_name
from keras_mgpu_strategy.sources.nests import leaves, pack, skeleton
from keras_mgpu_strategy.sources.ragged_leaf import no_tokens, rows_of_one_length
from keras_mgpu_strategy.sources.row_errors import BadRow, failing
from keras_mgpu_strategy.sources.row_lists import RowList, is_scalar
from keras_mgpu_strategy.sources.streams import Form
from keras_mgpu_strategy.sources.unsupported import is_of
from keras_mgpu_strategy.sources.wrapping import Rearranged
from keras_mgpu_strategy.types import Feeding, Nest, Ragged, Source, has_free_length

_is_arrow_list = is_of("pyarrow", "ListArray", "LargeListArray", "FixedSizeListArray")
_is_chunked = is_of("pyarrow", "ChunkedArray")


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
    is_one = isinstance(x, tf.RaggedTensor) or _is_arrow(x)
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
    x = _columns(x, named)
    if named is not None:
        return _of_declared(x, input_spec, name)
    found = _of_undeclared(x, name)
    flat = (leaf for _, leaf in leaves(found))
    if any(isinstance(leaf, Ragged | RowList) for leaf in flat):
        return found
    return map_nest(_of_one_length, found)


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
    if isinstance(rows, RowList):
        rows.dtype = rows.widest()
    return rows


def _leaf(x: Any, declared: tf.TensorSpec, name: str) -> Any:
    """One input as declared."""
    if x is None:
        return None
    is_listed = isinstance(x, list | tuple) and len(x) == 1
    if is_listed and isinstance(x[0], tf.RaggedTensor):
        x = x[0]
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


def rows_of(x: Any, name: str) -> Any:
    """Returns rows that may differ in length as such, other inputs as they are."""
    if isinstance(x, tf.RaggedTensor):
        return _of_tensor(x, name)
    if _is_arrow(x):
        return rows_of_column(x, failing(name, 0))
    if _holds_lists(x):
        x = x.to_list()
    if isinstance(x, np.ndarray) and x.dtype.kind == "O" and x.ndim == 1:
        x = x.tolist()
    if not isinstance(x, list | tuple):
        return x
    if x and is_scalar(x[0]) and all(map(is_scalar, x)):
        is_text = isinstance(x[0], str | bytes)
        return np.array(x, object) if is_text else np.asarray(x)
    try:
        return RowList(x)
    except BadRow as bad:
        rows = RowList([[]] * len(x))
        rows.error = bad
        return rows


def _is_arrow(x: Any) -> bool:
    """Whether `x` is an Arrow array of lists."""
    return _is_arrow_list(x) or (_is_chunked(x) and hasattr(x.type, "value_field"))


def _columns(x: Any, names: Collection[str] | None) -> Any:
    """Returns the columns of a frame that has columns of lists, others as they are.

    They are chosen by the names of the inputs, or else the only one is taken.
    """
    if not (frames.is_frame(x) or (frames.is_polars(x) and hasattr(x, "columns"))):
        return x
    listed = [name for name in x.columns if _holds_lists(x[name])]
    if not listed:
        return x
    names = list(x.columns if names is None else names)
    if len(names) == 1 and len(listed) == 1 and names != listed:
        return x[listed[0]]
    return {name: x[name] for name in x.columns if name in names}


def _holds_lists(x: Any) -> bool:
    if frames.is_series(x):
        first = x.iloc[0] if len(x) else None
        return isinstance(first, list | tuple | np.ndarray)
    return frames.is_polars(x) and hasattr(getattr(x, "dtype", None), "inner")


def _of_tensor(x: Any, name: str) -> Ragged:
    if x.ragged_rank > 1:
        raise ValueError(
            f"{name} is a RaggedTensor of shape {x.shape}, expected one axis that "
            "varies, the first after the batch axis. Pad the others, e.g. by "
            "x.to_tensor()."
        )
    with tf.device("CPU:0"):
        return Ragged(np.asarray(x.values), np.asarray(x.row_splits).astype(np.int64))
