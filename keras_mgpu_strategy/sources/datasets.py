"""`tf.data.Dataset`s that the user has batched.

What the element spec shows to be wrong is an error before anything is read. Autotune is
off while reading: at the end of a pass it can stall for as long as the pass took. Rows
are copied once: a user function may reuse the memory of a tensor.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.element_forms import SparseRows, map_nest
from keras_mgpu_strategy.sources.casting import cast_for
from keras_mgpu_strategy.sources.matching import Match, match_inputs
from keras_mgpu_strategy.sources.nests import leaves, pack, skeleton
from keras_mgpu_strategy.sources.streams import Form, StreamSource, inputs_of
from keras_mgpu_strategy.types import Nest


def dataset_source(
    x: tf.data.Dataset,
    steps: int | None,
    input_spec: Nest,
    form: Form = inputs_of,
    *,
    lists_are_rows: bool = False,
) -> StreamSource:
    """Reads a data set; its elements are batches. Arguments as in `StreamSource`.

    With `lists_are_rows`, rows may differ in length, and only reading shows their spec.
    """
    spec = None if lists_are_rows else _spec_of(x, input_spec, form)
    if steps is None and x.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            "Received a tf.data.Dataset that never ends, expected steps= with it: the "
            "number of batches to read."
        )
    limited = without_autotune(x if steps is None else x.take(steps))

    def open_fn() -> Iterator[Any]:
        # Otherwise the elements land on the first GPU if that is the default device.
        with tf.device("CPU:0"):
            return iter(limited)

    settings = (steps, input_spec, form)
    return StreamSource(open_fn, *settings, spec=spec, lists_are_rows=lists_are_rows)


def without_autotune(x: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the data set with autotune off and all other options unchanged."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return x.with_options(options)


def _spec_of(x: tf.data.Dataset, input_spec: Nest, form: Form) -> Nest:
    """Returns the spec of rows; None if only reading shows the number of axes."""
    none = tf.type_spec_from_value(None)
    nest = form(map_nest(lambda leaf: None if leaf == none else leaf, x.element_spec))
    structure = skeleton(nest)
    stored = [_checked_leaf(path, leaf) for path, leaf in leaves(nest)]
    if any(spec.shape.rank is None for spec in stored):
        return None
    matches = match_inputs(pack(structure, stored), input_spec)
    specs = []
    for path, leaf in leaves(nest):
        match, dtype = matches.get(path, Match()), leaf.dtype
        if dtype != tf.string:
            dtype = cast_for(np.dtype(dtype.as_numpy_dtype), path, match.dtype).dtype
        shape = [None, *leaf.shape[1:]]
        rows = tf.TensorSpec(shape, dtype)
        stays = match.stays_sparse and isinstance(leaf, tf.SparseTensorSpec)
        specs.append(SparseRows(rows, tf.TensorSpec(shape, tf.bool)) if stays else rows)
    return pack(structure, specs)


def _checked_leaf(path: str, leaf: Any) -> tf.TensorSpec:
    if not isinstance(leaf, tf.TensorSpec | tf.SparseTensorSpec):
        is_ragged = isinstance(leaf, tf.RaggedTensorSpec)
        remedy = "Convert it with dataset.map(...)."
        if is_ragged:
            remedy = "Pass pad=mgpu.Pad(), or use dataset.map(lambda x: x.to_tensor())."
        raise TypeError(
            f"{path} of the tf.data.Dataset is a {type(leaf).__name__}, expected "
            f"tensors of one shape. {remedy}"
        )
    if leaf.shape.rank == 0:
        raise ValueError(
            f"{path} of the tf.data.Dataset has shape (), expected a batch axis first. "
            "Batch it: dataset.batch(...)."
        )
    return tf.TensorSpec(leaf.shape, leaf.dtype)
