"""`load`: from a model on disk to a Predictor."""

import os
from collections.abc import Sequence
from typing import Any, Literal

from keras_mgpu_strategy.engines.options import (
    Combine,
    Compile,
    EngineName,
    OutputDtype,
    Precision,
)
from keras_mgpu_strategy.engines.placing import SavedModel
from keras_mgpu_strategy.engines.ray.plan import RayOptions
from keras_mgpu_strategy.models import View
from keras_mgpu_strategy.predictor import Predictor
from keras_mgpu_strategy.system.tracebacks import short_traceback


@short_traceback
def load(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    custom_objects: dict[str, Any] | None = None,
    safe_mode: bool = True,
    engine: EngineName = "threads",
    compile: Compile = "auto",
    jit_compile: bool | Literal["auto"] = "auto",
    in_flight: int | Literal["auto"] = "auto",
    profile: str | os.PathLike[str] | None = None,
    precision: Precision | None = None,
    outputs: str | Sequence[str] | None = None,
    output_dtype: OutputDtype | None = None,
    combine: Combine | None = None,
    views: Sequence[str | View] | None = None,
    tuning: str | os.PathLike[str] | None = None,
    ray: RayOptions | None = None,
) -> Predictor:
    """Reads a model from disk onto every device.

    Args:
        path: A `.keras` file, a legacy `.h5` or `.hdf5` file, or a SavedModel folder;
            or a list of these, whose results are combined.
        custom_objects: Names to classes or functions that the model needs.
        safe_mode: Refuse `.keras` and HDF5 files that contain Python code (Lambda
            layers) or name code that is neither Keras' nor yours. A SavedModel is a
            program, without a safe mode: load only those that you trust.
        engine, compile, jit_compile, in_flight, profile, precision, outputs,
            output_dtype, combine, views, tuning, ray: As in `Predictor`, which also
            says how devices are chosen.

    Raises:
        FileNotFoundError: There is no such path.
        TypeError: An option has a wrong type.
        ValueError: The file is in another format, damaged, or cannot be placed on every
            device or in the requested precision; an option has an invalid value.
        RuntimeError: This process was forked after TensorFlow had started.
    """
    paths: Any = path if isinstance(path, list | tuple) else [path]
    return Predictor(
        [SavedModel(one, custom_objects, safe_mode) for one in paths],
        engine=engine,
        compile=compile,
        jit_compile=jit_compile,
        in_flight=in_flight,
        profile=profile,
        precision=precision,
        outputs=outputs,
        output_dtype=output_dtype,
        combine=combine,
        views=views,
        tuning=tuning,
        ray=ray,
    )
