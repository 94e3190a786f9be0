"""`Predictor`: a model that lives on every device, and `load`, which reads one.

Guarantees, for every input, row count, batch size and number of replicas:

* The rows of the results are the rows of the input, in order, none missing, none
  twice, and equal to those of a run on one device.
* Input errors are raised before any row is run.
* Results are gathered on the host; devices hold a few chunks at a time.
"""

import os
from collections.abc import Sequence
from typing import Any, Literal

from keras_mgpu_strategy.engines.options import (
    Combine,
    Compile,
    EngineName,
    Options,
    OutputDtype,
    Precision,
)
from keras_mgpu_strategy.engines.placing import SavedModel, place
from keras_mgpu_strategy.engines.ray.plan import RayOptions
from keras_mgpu_strategy.models import View
from keras_mgpu_strategy.runs.callbacks import Verbose
from keras_mgpu_strategy.runs.evaluation import Evaluator
from keras_mgpu_strategy.runs.into_files import IntoFiles
from keras_mgpu_strategy.runs.tuning import TuningFile
from keras_mgpu_strategy.sources.pad import Pad
from keras_mgpu_strategy.system.tracebacks import short_traceback


class Predictor(IntoFiles):
    """A Keras model that lives on every device.

    Inside a scope, these are the scope's; outside, those where it was built, or every
    visible GPU (the CPU if there is none). A model that was built elsewhere is
    rebuilt with its weights and compile settings.

    All predict methods take NumPy arrays, tensors, array-likes with `shape` and slicing
    (memmap, h5py, zarr), pandas frames and series, sparse matrices and tensors; dicts,
    lists and tuples of them, with None for optional inputs; `tf.data.Dataset`,
    `keras.utils.PyDataset`, generators of batches; paths and `mgpu.files`.

    Args:
        model: A built or unbuilt Keras model, or a list of them, whose results are
            combined; for models on disk, see `load`.
        engine: `"threads"`: each device takes the next chunk when it is free.
            `"mirrored"`: all devices step together under `strategy.run`, fed by a
            distributed tf.data pipeline. `"ray"`: each device has a process of its own,
            on this machine or on a cluster. Results are the same bit for bit.
        compile: How the model is compiled. `"plain"`: as it is. `"frozen"`: with its
            weights as constants, so that TensorFlow can simplify more. `"xla"`: by XLA.
            `"auto"`: a run of more than a few seconds compares these on its first rows,
            in about a tenth of its time at most, and later runs use the fastest. A run
            begins with `"plain"`, or with `"xla"` on GPUs where that is known to work.
            XLA is left out for layers that do not support it and models compiled with
            `jit_compile=False`; nothing is compared if TensorFlow's ops must be
            deterministic.
        jit_compile: Keras' spelling of `compile="xla"` (True) and `"plain"` (False).
        in_flight: Chunks on a device at a time, 1 to 4, until their results are on the
            host. `"auto"`: 3 on GPUs, where more chunks hide copies, and 1 on CPUs.
        profile: Folder for a trace of each run, which TensorBoard's profiler reads.
        precision: The model is rebuilt so that all its floats have that dtype; float
            results are float32. None: the model as it is.
        outputs: Names of layers whose outputs are the results; of layers in nested
            models as `"encoder/pool"`, of a SavedModel as its signature names them.
            One name gives an array, several a dict by name. What they do not need is
            not computed. None: the outputs of the model.
        output_dtype: Floats of the results are cast to `"float16"`, `"float32"` or
            `"float64"` on the device, before they are copied to the host. Integers,
            bools and strings stay. None: the dtypes of the model's outputs.
        combine: How the results of several models or views are combined, on the device.
            `"mean"`, or None: their mean (of probabilities, with `from_logits`).
            `"gmean"`: their geometric mean, not normalised. `"vote"`: the class that
            most of them predict, the lowest if several tie. `"stack"`: all results,
            along a new axis 1, all views of the first model before those of the next.
            `"mean_std"`: `{"mean": ..., "std": ...}` in place of each output.
        views: Views of each row, whose results are combined: names (`"identity"`,
            `"flip_left_right"`, `"flip_up_down"`, `"rot90"`, `"rot180"`, `"rot270"`)
            for images of shape `(n, height, width, channels)`, or `mgpu.View`. Every
            model is given every view; outputs that are images are turned back. None:
            only the rows as they are.
        tuning: A small file that keeps what `compile="auto"` and `batch_size=None` have
            found, by model, weights, rows, devices and TensorFlow, for later processes,
            which then do not search again. It is made if there is none. None: only this
            Predictor remembers.
        ray: How `engine="ray"` is spread over processes; None for the defaults.

    Raises:
        TypeError: `model` is not a Keras model, or an option has a wrong type.
        ValueError: An option is invalid, or the model cannot be put on every device.
        RuntimeError: TensorFlow had started before this process was forked.
    """

    @short_traceback
    def __init__(
        self,
        model: Any,
        *,
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
    ):
        how = (engine, compile, jit_compile, in_flight, profile, precision)
        options = Options(*how, outputs, output_dtype, combine, views)
        file = None if tuning is None else TuningFile(tuning)
        super().__init__(place(model, options, ray), profile, file)
        self._evaluator = Evaluator(self._runner)

    @short_traceback
    def evaluate(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Verbose = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
        *,
        pad: Pad | None = None,
    ) -> Any:
        """Loss and metrics of all rows, as `keras.Model.evaluate` on one device.

        The devices give outputs; the compiled losses and metrics are computed on the
        host, in the batches and by the methods of Keras. So results do not depend on
        the number of devices.

        Args:
            x: The rows; see `Predictor`. Generators and data sets yield `(x, y)` or
                `(x, y, sample_weight)`.
            y: The labels: arrays, or lists, tuples and dicts of them as the model's
                outputs; a file of them (`pathlib.Path`, `mgpu.files`), read along with
                x; or the name of a column of x, which is then not an input.
            batch_size: Rows of a batch of losses and metrics, 32 by default, and of a
                global batch, as in `predict`.
            verbose: 0 silent, 1 a bar, 2 a line, "auto" a bar on a terminal, or in a
                notebook after a second.
            sample_weight: A weight for each row, or for each label: an array, a file,
                or the name of a column.
            steps: Batches to draw from `x`; None draws all.
            callbacks: Keras callbacks, called for each batch.
            return_dict: Return a dict by Keras' names rather than a list.
            pad: As in `predict`.

        Returns:
            The loss, or a list of loss and metrics in Keras' order.

        Raises:
            ValueError: The model is not compiled, or evaluates itself by methods or
                losses of its own; labels do not fit rows or outputs. Also as in
                `predict`.
        """
        return self._evaluator.evaluate(
            x,
            y,
            batch_size,
            verbose,
            sample_weight,
            steps,
            callbacks,
            return_dict=return_dict,
            pad=pad,
        )


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
