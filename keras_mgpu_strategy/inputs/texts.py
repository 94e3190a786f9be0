"""Lists of strings, which are data if the model takes strings.

Guarantee: a list of paths of existing Parquet files stays a list of paths; so does
every list for an input that is not declared to take strings.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.formats.by_path import lists_tables
from keras_mgpu_strategy.sources.matching import entries_by_name
from keras_mgpu_strategy.sources.nests import is_nest
from keras_mgpu_strategy.types import Nest, Undeclared


def with_texts(x: Any, input_spec: Nest) -> Any:
    """Returns a nest with arrays in place of its lists of strings.

    Args:
        x: What the user passed.
        input_spec: What the model declares.
    """
    is_declared = input_spec is not None and not isinstance(input_spec, Undeclared)
    return _arrays(x, input_spec) if is_declared and not lists_tables(x) else x


def _arrays(x: Any, declared: Nest) -> Any:
    # An open .npz or HDF5 file is a Mapping too, but reading it to know is too much.
    if not isinstance(x, (dict, list, tuple)):
        return x
    entries = entries_by_name(declared)
    if isinstance(x, dict):
        known = {key: _arrays(x[key], entries[key]) for key in x if key in entries}
        return {**x, **known}
    if not is_nest(declared):
        is_text = declared.dtype == tf.string and _holds_text(x)
        return np.array(x, dtype=object) if is_text else x
    if len(entries) == 1 and _holds_text(x):
        return _arrays(x, next(iter(entries.values())))
    if len(entries) == len(x):
        return [_arrays(*pair) for pair in zip(x, entries.values(), strict=True)]
    return x


def _holds_text(x: Any) -> bool:
    """Whether `x` is a list or tuple of strings, or of such lists."""
    if not isinstance(x, (list, tuple)) or not x:
        return False
    return all(isinstance(item, (str, bytes)) or _holds_text(item) for item in x)
