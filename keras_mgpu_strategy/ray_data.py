"""A model for the user's own Ray Data pipelines.

Blocks of any size run in calls of one static shape, and rows keep their place and
columns; a block of no rows has all columns too. TensorFlow keeps to the GPUs and cores
that Ray gave the process.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy import models
from keras_mgpu_strategy.compute.heads import head_of
from keras_mgpu_strategy.compute.signatures import example_inputs
from keras_mgpu_strategy.engines.options import Compile, OutputDtype, Precision
from keras_mgpu_strategy.engines.ray import process
from keras_mgpu_strategy.models.libraries import input_spec_of
from keras_mgpu_strategy.outputs.columns import columns_of
from keras_mgpu_strategy.predictor import load
from keras_mgpu_strategy.sources.matching import entries_by_name, is_optional
from keras_mgpu_strategy.system.integers import count
from keras_mgpu_strategy.system.tracebacks import short_traceback
from keras_mgpu_strategy.types import Nest


def _set_up_process() -> None:
    if process.is_actor():
        process.configure()
        models.set_apart()


class BatchPredictor:
    """A callable class for `ray.data.Dataset.map_batches`.

    Every process of the pipeline creates one, which loads the model onto the GPU that
    Ray has given the process, or the CPU.

    Args:
        path: As in `load`; a path that every machine can read.
        columns: The column of each model input, by the input's name; or one name if
            the model has one input. None takes columns by the names of the inputs, or
            the only column there is.
        outputs: Names of the columns to add, in the order of the model's outputs. None:
            `output`, the keys of a dict, or `output_0` and so on.
        keep: Columns of the input to pass on; None passes on all.
        method: `"predict_proba"`, `"predict"`, `"predict_classes"` or
            `"predict_top_k"`, whose columns are `classes` and `scores`.
        from_logits, k: As in these methods.
        batch_size: Rows of one call of the model.
        custom_objects, safe_mode, compile, jit_compile, precision, output_dtype: As in
            `load`.
        layer_outputs: As `outputs` in `load`: these layers then give the model's
            outputs, in this order.

    Raises:
        TypeError: `batch_size` is not an integer.
        ValueError: `batch_size` is below 1, or the method is unknown.
    """

    @short_traceback
    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        columns: Mapping[str, str] | str | None = None,
        outputs: Sequence[str] | None = None,
        keep: Sequence[str] | None = None,
        method: str = "predict_proba",
        from_logits: bool = False,
        k: int | None = None,
        batch_size: int = 256,
        custom_objects: dict[str, Any] | None = None,
        safe_mode: bool = True,
        compile: Compile = "auto",
        jit_compile: bool | Literal["auto"] = "auto",
        precision: Precision | None = None,
        layer_outputs: str | Sequence[str] | None = None,
        output_dtype: OutputDtype | None = None,
    ):
        head = head_of(method, from_logits=from_logits, k=k)
        count("batch_size", batch_size)
        _set_up_process()
        predictor = load(
            path,
            custom_objects=custom_objects,
            safe_mode=safe_mode,
            compile=compile,
            jit_compile=jit_compile,
            precision=precision,
            outputs=layer_outputs,
            output_dtype=output_dtype,
        )
        self._input_spec = input_spec_of(predictor.model)
        self._optional = _optional_of(self._input_spec)
        self._predict = getattr(predictor, method)
        own = {"from_logits": from_logits or None, "k": head.k}
        given = {name: value for name, value in own.items() if value is not None}
        self._arguments: Any = {"batch_size": batch_size, "verbose": 0, **given}
        self._columns, self._outputs, self._keep = columns, outputs, keep
        self._layers = _if_several(layer_outputs)

    @short_traceback
    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs a block.

        Args:
            batch: Column -> array of shape `(rows, ...)`, or of rows that are lists of
                equal length.

        Raises:
            TypeError: The block is not a dict of arrays.
            ValueError: A column is missing, or its rows differ in shape.
        """
        if not isinstance(batch, Mapping):
            raise TypeError(
                f"Received a block of type {type(batch).__name__}, expected a dict of "
                'arrays. Leave batch_format of map_batches as it is: "numpy".'
            )
        results = self._predict(self._inputs(batch), **self._arguments)
        names = self._outputs or [column.name for column in columns_of(results)]
        if self._outputs and self._layers:  # in their order, not that of their names
            results = [results[layer] for layer in self._layers]
        arrays = tf.nest.flatten(results)
        if len(names) != len(arrays):
            raise ValueError(
                f"outputs={list(names)!r} names {len(names)} columns, but the model "
                f"has {len(arrays)} outputs. Expected one name for each."
            )
        kept = batch if self._keep is None else _picked(batch, self._keep)
        clash = sorted(set(names) & set(kept))
        if clash:
            raise ValueError(
                f"The input has columns {clash} already. Pass outputs= with other "
                "names, or keep= without them."
            )
        return {**kept, **dict(zip(names, map(np.asarray, arrays), strict=True))}

    def _inputs(self, batch: Mapping[str, np.ndarray]) -> Nest:
        if self._input_spec is not None and not any(map(len, batch.values())):
            return example_inputs(self._input_spec, 0)  # lists of no rows have no shape
        columns = self._columns
        if columns is None:
            is_one = len(batch) == 1 and not self._optional
            columns = next(iter(batch)) if is_one else {name: name for name in batch}
        if isinstance(columns, str):
            return _stacked(columns, _picked(batch, [columns])[columns])
        found = _picked(batch, list(columns.values()))
        arrays = {name: _stacked(c, found[c]) for name, c in columns.items()}
        return {**dict.fromkeys(self._optional), **arrays}


def _if_several(names: str | Sequence[str] | None) -> Sequence[str] | None:
    is_one = isinstance(names, str) or len(names or ()) < 2
    return None if is_one else names


def _optional_of(input_spec: Nest | None) -> list[str]:
    """Names of the inputs that a block may lack."""
    declared = {} if input_spec is None else entries_by_name(input_spec)
    if len(declared) < 2:
        return []
    return [name for name, spec in declared.items() if is_optional(spec)]


def _picked(batch: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    missing = [name for name in names if name not in batch]
    if missing:
        raise ValueError(
            f"There are no columns {missing} among {sorted(batch)}. Name the columns "
            "with columns= and keep=."
        )
    return {name: batch[name] for name in names}


def _stacked(name: str, column: np.ndarray) -> np.ndarray:
    """Rows of lists, as fixed-size lists arrive, as one array of numbers."""
    if column.dtype != object or len(column) == 0:
        return column
    if isinstance(column[0], (str, bytes)):
        return column.astype("S" if isinstance(column[0], bytes) else "U")
    try:
        return _dense(column)
    except ValueError as error:
        raise ValueError(
            f"Rows of the column {name!r} differ in shape or are not numbers: {error}. "
            "Expected one shape, as fixed-size lists and tensors have."
        ) from error


def _dense(value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype != object or array.ndim == 0:
        return array
    return np.stack([_dense(row) for row in array])
