"""`mgpu predict`: from a model and files of rows to a file of results.

Guarantees:

* Files are checked as far as possible before TensorFlow is loaded, and completely
  before the model runs.
* The output gets its name once it is complete, and never replaces what was there before
  unless `--overwrite` is given.
"""

from typing import Any

import numpy as np

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.cli import files
from keras_mgpu_strategy.cli.call import Call
from keras_mgpu_strategy.cli.ending import (
    Run,
    plain_warnings,
    stoppable,
    told,
)
from keras_mgpu_strategy.cli.job import PredictJob, job_of
from keras_mgpu_strategy.cli.own_code import find_here, objects_of
from keras_mgpu_strategy.cli.printing import complain, say
from keras_mgpu_strategy.outputs.target import Target
from keras_mgpu_strategy.report import Report, rate_text
from keras_mgpu_strategy.system import environment
from keras_mgpu_strategy.system.signals import stopping_signals


def run(call: Call) -> None:
    """Predicts, saves and reports.

    Raises:
        Stopped: A signal came.
        Failed: The run failed after it had begun.
        ValueError: Bad input; also other errors that the Python API documents.
    """
    job = job_of(call.arguments, call.flag_values)
    labels = _check_files(job)
    target = Target(job.output, job.shard)
    target.check(resume=job.running["resume"], overwrite=job.running["overwrite"])
    unfinished = Run(target, job.shard, call.to_resume(), call.to_repeat())
    stopping = stopping_signals(job.running["stop_on"])
    with stoppable(unfinished, stopping), plain_warnings():
        predictor = _load(job)
        _check_outputs(job, predictor)
        rows = _input(job)
        _note_on_names(job, rows)
        with told(unfinished, lambda: predictor.report is not None, _module(job)):
            report = predictor.predict_to(job.output, rows, **job.running)
    _print_report(job, report)
    if labels is not None:
        _print_accuracy(job, labels)
    say(f"output    {_written(job)}")


def _check_files(job: PredictJob) -> np.ndarray | None:
    """Returns the labels, read from disk as they are needed."""
    if not job.model.exists():
        raise FileNotFoundError(f"There is no model {job.model}. Check the path.")
    num_rows = files.check_inputs(job.inputs)
    files.reader_of(job.inputs[0], job.table_flags, job.image_flags)
    read = [job.model, *job.inputs, *([job.labels] if job.labels else [])]
    files.check_output(job.output, read)
    return None if job.labels is None else files.open_labels(job.labels, num_rows)


def _load(job: PredictJob) -> Any:
    with environment.quiet_start():
        import tensorflow as tf

        tf.config.list_physical_devices()
        options = dict(job.options)
        if "custom_objects" in options:
            options["custom_objects"] = objects_of(options["custom_objects"])
    replicas_per_device = job.replicas_per_device
    if job.is_ray:
        options["ray"] = mgpu.RayOptions(
            replicas_per_device=replicas_per_device, **job.ray_options
        )
        predictor = mgpu.load(job.model, **options)
    else:
        with mgpu.scope(job.devices, replicas_per_device=replicas_per_device):
            predictor = mgpu.load(job.model, **options)
    names = [device.rpartition("device:")[2] for device in predictor.devices]
    say(f"devices   {', '.join(names)}")
    say(f"replicas  {predictor.num_replicas}")
    return predictor


def _check_outputs(job: PredictJob, predictor: Any) -> None:
    """Refuses labels for several outputs, if a model declares its outputs."""
    if job.labels is None or job.is_ray:  # with Ray, outputs are counted at the end
        return
    declared = getattr(predictor.model, "outputs", None)
    if isinstance(declared, list) and len(declared) > 1:
        raise ValueError(
            f"--labels goes with a model of one output; {job.model} has "
            f"{len(declared)}."
        )


def _input(job: PredictJob) -> Any:
    """What the Predictor reads: the paths themselves, or one of `mgpu.files`."""
    reader = files.reader_of(job.inputs[0], job.table_flags, job.image_flags)
    if _module(job) is not None:
        find_here()
    if reader is None:
        return job.rows
    return getattr(mgpu.files, reader)(job.rows, **job.reading)


def _module(job: PredictJob) -> str | None:
    """The module of the user's function that prepares images, if any."""
    module, colon, _ = str(job.reading.get("preprocess", "")).partition(":")
    return module if colon else None


def _note_on_names(job: PredictJob, rows: Any) -> None:
    is_images = isinstance(rows, mgpu.files.Images) or files.has_images(job.inputs[0])
    if is_images and job.output.suffix.lower() == ".npy":
        complain(
            f"note: {job.output} will not hold the names of the images: its rows are "
            "the files, class by class as in image_dataset_from_directory. A .parquet "
            "or .csv output has the names in a column."
        )


def _print_report(job: PredictJob, report: Report) -> None:
    if job.shard is not None:
        say(f"shard     {job.shard.index}/{job.shard.count}")
    of_this_run = " in this run" if job.running["resume"] else ""
    say(f"rows      {report.rows:,}{of_this_run}")
    say(f"rows/s    {rate_text(report.rows_per_second)}")
    for line in str(report).splitlines()[1:]:
        say(f"report    {line}")


def _print_accuracy(job: PredictJob, labels: np.ndarray) -> None:
    if job.output.is_dir():
        raise ValueError(
            "No accuracy: the output was written, but the model has several outputs, "
            "and --labels expects one class per row."
        )
    num_right = files.count_right(files.open_rows(job.output), labels)
    share = num_right / max(len(labels), 1)
    say(f"accuracy  {share:.4f} ({num_right:,} of {len(labels):,})")


def _written(job: PredictJob) -> Any:
    """Where the rows are now."""
    if job.shard is None:
        return job.output
    own = job.shard.file_of(job.output)
    return own if own.exists() else job.output
