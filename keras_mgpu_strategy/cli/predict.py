"""`mgpu predict`: from a model and files of rows to a file of results.

Files are checked as far as possible before TensorFlow is loaded. The output gets its
name once it is complete, and replaces another only with `--overwrite`.
"""

import dataclasses
import functools
import importlib
import itertools
import os
import pathlib
import sys
import types
from collections.abc import Iterable, Sequence
from typing import Any

from absl import flags

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.cli import files
from keras_mgpu_strategy.cli.ending import how_far, reporting, stoppable
from keras_mgpu_strategy.cli.printing import complain, plain_warnings, say
from keras_mgpu_strategy.cli.run import PredictRun, run_of
from keras_mgpu_strategy.formats.registry import IMAGES
from keras_mgpu_strategy.outputs.target import Target
from keras_mgpu_strategy.report import Report, metric_lines, rate_text
from keras_mgpu_strategy.system import environment

_LIBRARIES = frozenset({"builtins", "keras", "numpy", "tensorflow", "tf_keras"})


def predict(
    arguments: Sequence[str], flag_values: flags.FlagValues, words: Sequence[str]
) -> None:
    """Predicts, saves and reports; a `ValueError` for bad input."""
    run = run_of(arguments, flag_values)
    _check_files(run)
    target = Target(run.output, run.shard)
    how = {name: bool(run.running.get(name)) for name in ("resume", "overwrite")}
    target.check(**how)
    safe = functools.partial(how_far, target, words)
    with stoppable(safe, run.stopping), plain_warnings():
        predictor = _load(run)
        _check_outputs(run, predictor)
        rows = _input(run)
        with reporting(safe, lambda: predictor.report is not None, run.own_module):
            report = predictor.predict_to(run.output, rows, **run.running)
    _print_report(run, report)
    own = run.shard.file_of(run.output) if run.shard else run.output
    say(f"output    {own if own.exists() else run.output}")


def _check_files(run: PredictRun) -> None:
    files.check_models(run.models, run.loading)
    num_rows = files.check_inputs(run.inputs)
    files.reader_of(run.inputs[0], run.reading)
    labels = [run.labels] if isinstance(run.labels, pathlib.Path) else []
    files.check_output(run.output, [*run.models, *run.inputs, *labels])
    for path in labels:
        files.check_labels(path, num_rows)


def _load(run: PredictRun) -> Any:
    with environment.quiet_start():
        import tensorflow as tf

        tf.config.list_physical_devices()
        loading = dict(run.loading)
        if "custom_objects" in loading:
            loading["custom_objects"] = _objects_of(loading["custom_objects"])
    if run.is_ray:
        options = mgpu.RayOptions(**run.scope, **run.ray)
        predictor = mgpu.load(run.models, ray=options, **loading)
    else:
        with mgpu.scope(**run.scope):
            predictor = mgpu.load(run.models, **loading)
    names = [device.rpartition("device:")[2] for device in predictor.devices]
    if len(run.models) > 1:
        say(f"models    {', '.join(map(str, run.models))}")
    say(f"devices   {', '.join(names)}")
    say(f"replicas  {predictor.num_replicas}")
    return predictor


def _objects_of(modules: Iterable[str]) -> dict[str, Any]:
    """Imports modules; returns their public names, but not those of Keras and such."""
    _import_from_here()
    found: dict[str, Any] = {}
    for module in map(_imported, modules):
        names = getattr(module, "__all__", [n for n in vars(module) if n[0] != "_"])
        values = ((name, getattr(module, name)) for name in names)
        found |= {name: value for name, value in values if _is_own(value)}
    return found


def _import_from_here() -> None:
    """Lets modules in the working folder be imported, as `python -m` does."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def _imported(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # a module that it imports itself
        raise ValueError(
            f"--custom_objects={name}: there is no such module. Expected the name of "
            f"one, without .py, on PYTHONPATH or in the folder {os.getcwd()!r}."
        ) from error


def _is_own(value: Any) -> bool:
    is_code = isinstance(value, type | types.FunctionType)
    return is_code and value.__module__.partition(".")[0] not in _LIBRARIES


def _check_outputs(run: PredictRun, predictor: Any) -> None:
    """Refuses labels for several outputs, if a model declares its outputs."""
    if run.labels is None or run.is_ray:  # with Ray, outputs are counted at the end
        return
    model = predictor.model
    model = model[0] if isinstance(model, list) else model
    declared = getattr(model, "outputs", None)
    if isinstance(declared, list) and len(declared) > 1:
        raise ValueError(
            f"--labels goes with a model of one output; {run.models[0]} has "
            f"{len(declared)}. Choose one with --outputs, or call predict_to in Python "
            "with dicts of labels and metrics."
        )


def _input(run: PredictRun) -> Any:
    """What the Predictor reads: the paths themselves, or one of `mgpu.files`."""
    if run.own_module is not None:
        _import_from_here()
    first = run.inputs[0]
    reader = files.reader_of(first, run.reading)
    if run.output.suffix.lower() == ".npy" and (
        reader == IMAGES.name
        or any(map(IMAGES.is_of, itertools.chain([first], first.rglob("*"))))
    ):
        complain(
            f"note: {run.output} will not hold the names of the images: its rows are "
            "the files, class by class as in image_dataset_from_directory. A .parquet "
            "or .csv output has the names in a column."
        )
    rows = first if len(run.inputs) == 1 else list(run.inputs)
    return getattr(mgpu.files, reader)(rows, **run.reading) if reader else rows


def _print_report(run: PredictRun, report: Report) -> None:
    if run.shard is not None:
        say(f"shard     {run.shard.index}/{run.shard.count}")
    of_this_run = " in this run" if run.running.get("resume") else ""
    say(f"rows      {report.rows:,}{of_this_run}")
    say(f"rows/s    {rate_text(report.rows_per_second)}")
    for line in str(dataclasses.replace(report, metrics=None)).splitlines()[1:]:
        say(f"report    {line}")
    for line in metric_lines(report.metrics):
        say(line)
