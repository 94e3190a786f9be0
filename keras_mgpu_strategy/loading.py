"""`load`: from a model on disk to a Predictor."""

import os
from typing import Any

from keras_mgpu_strategy.engines.placing import place_file
from keras_mgpu_strategy.predictor import Predictor


def load(
    path: str | os.PathLike[str],
    *,
    custom_objects: dict[str, Any] | None = None,
    safe_mode: bool = True,
    **options: Any,
) -> Predictor:
    """Reads a model from disk onto every device.

    Args:
        path: A `.keras` file, a legacy `.h5` or `.hdf5` file, or a SavedModel folder.
        custom_objects: Names to classes or functions that the model needs.
        safe_mode: Refuse `.keras` and HDF5 files that hold Python code (Lambda layers)
            or name code that is neither Keras' nor yours. A SavedModel is a program,
            for which there is no safe mode: load only those that you trust.
        **options: See `Options` and, for processes, `RayOptions`. Devices are chosen as
            by `Predictor`.

    Raises:
        FileNotFoundError: There is no such path.
        ValueError: The file is of another kind, damaged, or cannot be placed on every
            device or in the precision asked for.
        RuntimeError: This process was forked after TensorFlow had started.
    """
    return Predictor(place_file(path, custom_objects, safe_mode, options))
