"""The user's input, read as rows: arrays, files, data sets and generators.

Rows come in order, each exactly once, and nothing is read whole. Everything that can be
checked without reading is checked before; later errors name batch and first row.
"""

from keras_mgpu_strategy.inputs.by_name import named_rows
from keras_mgpu_strategy.inputs.forms import select_inputs
from keras_mgpu_strategy.inputs.labels import labelled
from keras_mgpu_strategy.inputs.opening import as_source

__all__ = ["as_source", "labelled", "named_rows", "select_inputs"]
