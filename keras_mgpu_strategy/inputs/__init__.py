"""The user's input, read as rows: arrays, files, data sets and generators.

Guarantees: rows come in the order of the input, each exactly once, whatever the sizes
of the user's own batches. Nothing is read whole. Everything that can be checked without
reading is checked before any row is read; a fault that only reading shows is an error
that names the batch and its first row.
"""

from keras_mgpu_strategy import files
from keras_mgpu_strategy.inputs.by_name import named_rows
from keras_mgpu_strategy.inputs.forms import select_inputs
from keras_mgpu_strategy.inputs.opening import as_source
from keras_mgpu_strategy.sources.checks import check_batch_size
from keras_mgpu_strategy.sources.matching import check_inputs
from keras_mgpu_strategy.sources.origins import origin_of

__all__ = [
    "as_source",
    "check_batch_size",
    "check_inputs",
    "files",
    "named_rows",
    "origin_of",
    "select_inputs",
]
