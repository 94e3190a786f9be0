"""`tf.data.Dataset`s that the user has batched.

Guarantees:

* Whatever the element spec shows to be wrong is an error before anything is read.
* tf.data's autotuner is off while reading: at the end of a pass it can stall for as
  long as the pass took.
* Rows are copied once, like those of all streams: a user function
  (`tf.numpy_function`, `from_generator`) may reuse the memory of a tensor.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.element_forms import SparseRows
from keras_mgpu_strategy.sources.casting import Wanted, cast_for
from keras_mgpu_strategy.sources.elements import Form, inputs_of
from keras_mgpu_strategy.sources.matching import stay_sparse, wanted_dtypes
from keras_mgpu_strategy.sources.nests import leaves, pack, skeleton
from keras_mgpu_strategy.sources.streams import StreamSource
from keras_mgpu_strategy.types import Nest

_REMEDIES = {"RaggedTensorSpec": ".map(lambda x: x.to_tensor())"}


def dataset_source(
    x: tf.data.Dataset, steps: int | None, input_spec: Nest, form: Form = inputs_of
) -> StreamSource:
    """Reads a data set; its elements are batches.

    Args:
        x: The data set.
        steps: Number of elements to read; None for all.
        input_spec: What the model declares.
        form: Returns the part of an element that the model is given.

    Raises:
        TypeError: If elements are ragged or not tensors.
        ValueError: If it is not batched, not what the model takes, or infinite and
            `steps` is None.
    """
    spec = _checked_spec(form(_with_none(x.element_spec)), input_spec)
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

    how = {"steps": steps, "input_spec": input_spec, "form": form, "spec": spec}
    return StreamSource(open_fn, can_reopen=True, **how)


def without_autotune(x: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the data set with autotune off and all other options unchanged."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return x.with_options(options)


def _with_none(element_spec: Any) -> Any:
    """Returns the spec with None in the places where elements hold None."""
    none = tf.type_spec_from_value(None)
    return tf.nest.map_structure(
        lambda leaf: None if leaf == none else leaf, element_spec
    )


def _checked_spec(nest: Nest, input_spec: Nest) -> Nest:
    """Returns the spec of rows; None if only reading shows the number of axes."""
    stored = {path: _checked_leaf(path, leaf) for path, leaf in leaves(nest)}
    if any(spec.shape.rank is None for spec in stored.values()):
        return None
    plain = pack(skeleton(nest), list(stored.values()))
    wanted, sparse = wanted_dtypes(plain, input_spec), stay_sparse(plain, input_spec)
    specs = []
    for path, leaf in leaves(nest):
        shape = [None, *leaf.shape[1:]]
        rows = tf.TensorSpec(shape, _given(stored[path], path, wanted.get(path)))
        stays = path in sparse and isinstance(leaf, tf.SparseTensorSpec)
        places = tf.TensorSpec(shape, tf.bool)
        specs.append(SparseRows(rows, places) if stays else rows)
    return pack(skeleton(nest), specs)


def _checked_leaf(path: str, leaf: Any) -> tf.TensorSpec:
    if not isinstance(leaf, tf.TensorSpec | tf.SparseTensorSpec):
        remedy = _REMEDIES.get(type(leaf).__name__, ".map(...)")
        raise TypeError(
            f"{path} of the tf.data.Dataset is a {type(leaf).__name__}, expected "
            f"tensors of one shape. Convert it with dataset{remedy}."
        )
    if leaf.shape.rank == 0:
        raise ValueError(
            f"{path} of the tf.data.Dataset has shape (), expected a batch axis first. "
            "Batch it: dataset.batch(...)."
        )
    return tf.TensorSpec(leaf.shape, leaf.dtype)


def _given(spec: tf.TensorSpec, path: str, wanted: Wanted) -> tf.DType:
    if spec.dtype == tf.string:
        return spec.dtype
    return cast_for(np.dtype(spec.dtype.as_numpy_dtype), path, wanted).dtype
