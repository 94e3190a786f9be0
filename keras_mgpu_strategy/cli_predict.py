"""`mgpu predict`: from a model file and a `.npy` file to a `.npy` file.

Guarantees:

* All files are checked before TensorFlow is loaded, and the model before it runs.
* The output appears whole or not at all, and never in place of a file that was there
  before, unless `--overwrite` says so.
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import flags

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy import cli_files, environment

_LOW_PRECISIONS = ("bfloat16", "float16")
_OPTIONS = ("engine", "precision", "jit_compile", "profile")
_METHODS = ("predict_proba", "predict", "predict_classes")
_define_count = functools.partial(flags.DEFINE_integer, lower_bound=1)
_define_method = functools.partial(flags.DEFINE_enum, enum_values=_METHODS)

# How to define it, name, default, help that begins with what the value may be.
_FLAGS: tuple[tuple[Callable[..., Any], str, Any, str], ...] = (
    (
        flags.DEFINE_string,
        "output",
        None,
        "<FILE>: File to write, required: .npy, or .npz where the model has several "
        "outputs.",
    ),
    (
        _define_method,
        "method",
        "predict_proba",
        "What to write: probabilities (the default), the model's raw outputs, or "
        "class indices.",
    ),
    (
        flags.DEFINE_string,
        "devices",
        None,
        "<LIST>: Devices to run on, such as gpu:0,gpu:1 or cpu:0, or gpu or cpu for "
        "all of a kind. Default: every GPU, or the CPU where there is none. "
        "mgpu devices lists them.",
    ),
    (
        _define_count,
        "replicas_per_device",
        1,
        "<N>: Copies of the model on each device. Default: 1.",
    ),
    (
        _define_count,
        "batch_size",
        None,
        "<N>: Rows of one batch, shared among the replicas. Default: chosen for you.",
    ),
    (
        flags.DEFINE_string,
        "labels",
        None,
        "<FILE>: A .npy file of the true classes, one per row: prints the accuracy.",
    ),
    (
        flags.DEFINE_boolean,
        "from_logits",
        False,
        "The model's last layer has no softmax or sigmoid: apply it.",
    ),
    (
        functools.partial(flags.DEFINE_enum, enum_values=("threads", "mirrored")),
        "engine",
        None,
        "Devices each at their own pace (threads, the default), or all in step.",
    ),
    (
        functools.partial(flags.DEFINE_enum, enum_values=("float32", *_LOW_PRECISIONS)),
        "precision",
        None,
        "Compute in this precision. Default: as the model was saved.",
    ),
    (
        flags.DEFINE_boolean,
        "jit_compile",
        None,
        "Compile the model with XLA, or do not. Default: on GPUs where it can be.",
    ),
    (
        flags.DEFINE_string,
        "profile",
        None,
        "<DIR>: Folder for a trace that TensorBoard's profiler reads.",
    ),
    (
        flags.DEFINE_boolean,
        "overwrite",
        False,
        "Replace the output file if it exists.",
    ),
)


@dataclasses.dataclass(frozen=True)
class PredictJob:
    """What a user asked `mgpu predict` to do.

    Args:
        model: Path of the model.
        inputs: Path of the `.npy` file of input rows.
        output: Path of the file to write; `.npy`, or `.npz` for several outputs.
        method: Name of the Predictor's method.
        devices: As for `scope()`.
        replicas_per_device: As for `scope()`.
        batch_size: As for the Predictor's methods; None lets it choose.
        labels: Path of a `.npy` file of true classes, or None.
        from_logits: Whether the model's outputs are logits.
        overwrite: Whether `output` may exist.
        options: Options of the Predictor that were given.
    """

    model: pathlib.Path
    inputs: pathlib.Path
    output: pathlib.Path
    method: str
    devices: str | None
    replicas_per_device: int
    batch_size: int | None
    labels: pathlib.Path | None
    from_logits: bool
    overwrite: bool
    options: dict[str, Any]

    def __post_init__(self) -> None:
        """Raises ValueError for flags that contradict each other."""
        if self.method == "predict" and self.from_logits:
            raise ValueError(
                "--from_logits goes with --method=predict_proba or predict_classes; "
                "--method=predict writes what the model returns."
            )
        if self.method == "predict" and self.labels is not None:
            raise ValueError(
                "--labels goes with --method=predict_proba or predict_classes; "
                "--method=predict may return anything."
            )


def define_flags(flag_values: flags.FlagValues) -> None:
    """Adds the flags of `mgpu predict`."""
    for define, name, default, text in _FLAGS:
        define(name=name, default=default, help=text, flag_values=flag_values)


def run(arguments: Sequence[str], flag_values: flags.FlagValues) -> None:
    """Predicts, saves and reports."""
    job = _job(arguments, flag_values)
    inputs, labels = _check_files(job)
    with environment.quiet_start():
        import tensorflow as tf

        tf.config.list_physical_devices()
    with mgpu.scope(job.devices, replicas_per_device=job.replicas_per_device):
        predictor = mgpu.load(job.model, **job.options)
    _check_outputs(job, predictor, inputs)
    names = [device.rpartition("device:")[2] for device in predictor.devices]
    print(f"devices   {', '.join(names)}")
    print(f"replicas  {predictor.num_replicas}", flush=True)
    outputs = _predict(job, predictor, inputs)
    cli_files.save_outputs(job.output, outputs)
    print(f"rows      {len(inputs):,}")
    report: Any = predictor.report
    print(f"rows/s    {report.rows_per_second:,.0f}")
    for line in str(report).splitlines()[1:]:
        print(f"report    {line}")
    if labels is not None:
        _print_accuracy(outputs, labels)
    print(f"output    {job.output}")


def _job(arguments: Sequence[str], fv: flags.FlagValues) -> PredictJob:
    if not fv.output:
        raise ValueError(
            "predict needs --output=FILE.npy. See mgpu predict --help for examples."
        )
    return PredictJob(
        model=pathlib.Path(arguments[0]),
        inputs=pathlib.Path(arguments[1]),
        output=pathlib.Path(fv.output),
        method=fv.method,
        devices=fv.devices,
        replicas_per_device=fv.replicas_per_device,
        batch_size=fv.batch_size,
        labels=None if fv.labels is None else pathlib.Path(fv.labels),
        from_logits=fv.from_logits,
        overwrite=fv.overwrite,
        options={name: fv[name].value for name in _OPTIONS if fv[name].present},
    )


def _check_files(job: PredictJob) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the input rows and the labels, read from disk as they are needed."""
    if not job.model.exists():
        raise FileNotFoundError(f"There is no model {job.model}.")
    read = [job.model, job.inputs, *([job.labels] if job.labels else [])]
    cli_files.check_output(job.output, overwrite=job.overwrite, read=read)
    inputs = cli_files.open_rows(job.inputs)
    if job.labels is None:
        return inputs, None
    return inputs, cli_files.open_labels(job.labels, num_rows=len(inputs))


def _check_outputs(job: PredictJob, predictor: Any, inputs: np.ndarray) -> None:
    """Refuses several outputs for one array, and labels for several outputs."""
    import tensorflow as tf

    structure = predictor.predict(inputs[:1], batch_size=job.batch_size, verbose=0)
    several = len(tf.nest.flatten(structure)) != 1
    if several and job.output.suffix == ".npy":
        raise ValueError(
            f"{job.model} has several outputs, and --output={job.output} holds one "
            f"array. Give --output={job.output.with_suffix('.npz')}."
        )
    if several and job.labels is not None:
        raise ValueError(
            f"--labels goes with a model of one output; {job.model} has several."
        )


def _predict(job: PredictJob, predictor: Any, inputs: np.ndarray) -> Any:
    options = {"from_logits": True} if job.from_logits else {}
    return getattr(predictor, job.method)(
        inputs,
        batch_size=job.batch_size,
        verbose=1 if sys.stdout.isatty() else 0,
        **options,
    )


def _print_accuracy(outputs: np.ndarray, labels: np.ndarray) -> None:
    classes = cli_files.classes_of(outputs)
    num_right = int(np.count_nonzero(classes == labels))
    share = num_right / max(len(labels), 1)
    print(f"accuracy  {share:.4f} ({num_right:,} of {len(labels):,})")
