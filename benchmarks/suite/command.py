"""Flags of `predict_benchmark.py` and what it does. Imports no TensorFlow.

Guarantees:

* Bad flags are reported before anything is measured.
* With `--output`, the folder holds the report as JSON and Markdown after each job.
"""

import json
import pathlib
import shlex
import sys
from typing import Any

from absl import flags

from keras_mgpu_strategy.system.environment import expanded
from keras_mgpu_strategy.system.screen import Screen
from suite import catalog, conductor, plots, tables
from suite.jobs import Options


def define_flags(flag_values: flags.FlagValues) -> None:
    """Adds the flags of `predict_benchmark.py`."""
    _define_what(flag_values)
    _define_how_much(flag_values)
    flags.DEFINE_string(
        "output",
        None,
        "<DIR>: Folder for the report. Default: only print it.",
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "name",
        None,
        "<NAME>: Begins the names of the files in --output. Default: the case.",
        flag_values=flag_values,
    )
    flags.DEFINE_boolean(
        "plot",
        False,
        "Also write pictures to --output; needs the plot extra.",
        flag_values=flag_values,
    )


def _define_what(fv: flags.FlagValues) -> None:
    cases = "; ".join(f"{name}: {text}" for name, text in catalog.CASES.items())
    flags.DEFINE_enum(
        "case", "throughput", list(catalog.CASES), f"{cases}.", flag_values=fv
    )
    flags.DEFINE_list(
        "replicas",
        ["1", "2"],
        "<LIST>: Numbers of replicas, such as 1,2,4. Each gets a process of its own.",
        flag_values=fv,
    )
    flags.DEFINE_list(
        "model",
        [],
        f"<LIST>: {', '.join(catalog.MODELS)}, or paths of .keras or HDF5 files. "
        "Default: those of the case.",
        flag_values=fv,
    )
    flags.DEFINE_list(
        "contenders",
        [],
        f"<LIST>: {', '.join(catalog.CONTENDERS)}. Default: all that the case has.",
        flag_values=fv,
    )
    flags.DEFINE_enum(
        "devices",
        "auto",
        ["auto", "gpu", "cpu"],
        "auto takes GPUs where there are any, else virtual CPU devices.",
        flag_values=fv,
    )
    flags.DEFINE_list(
        "replicas_per_device",
        [],
        "<LIST>: Numbers of replicas that share one device, such as 1,2,4: does that "
        "pay? Short for --case=one_device --replicas=LIST.",
        flag_values=fv,
    )


def _define_how_much(fv: flags.FlagValues) -> None:
    flags.DEFINE_integer(
        "batch", None, "<N>: Rows of one replica in a batch.", flag_values=fv
    )
    flags.DEFINE_integer(
        "rows",
        None,
        "<N>: Rows of a sample; with --weak those of one replica. Default: as many as "
        "keep Keras busy for --seconds.",
        flag_values=fv,
    )
    flags.DEFINE_float(
        "seconds", 3.0, "<X>: Aimed-at length of a sample.", flag_values=fv
    )
    flags.DEFINE_integer(
        "repetitions", 5, "<N>: Samples of each contender.", flag_values=fv
    )
    flags.DEFINE_boolean(
        "weak", False, "Let the rows grow with the replicas.", flag_values=fv
    )
    flags.DEFINE_boolean(
        "odd_rows",
        True,
        "Try a number of rows that nothing divides after the timing.",
        flag_values=fv,
    )
    flags.DEFINE_integer("seed", 0, "<N>: Of rows and weights.", flag_values=fv)


def run(flag_values: flags.FlagValues) -> None:
    """Measures, prints the table and writes the files.

    Raises:
        ValueError: A flag is invalid, or devices are missing.
        RuntimeError: A job failed.
    """
    options = options_of(flag_values)
    command = shlex.join(["python", "benchmarks/predict_benchmark.py", *sys.argv[1:]])
    folder = (
        None
        if flag_values.output is None
        else pathlib.Path(expanded(flag_values.output))
    )
    if flag_values.plot and folder is None:
        raise ValueError("--plot needs --output=DIR, the folder for the pictures.")
    if flag_values.plot:
        plots.load_pyplot()
    stem = flag_values.name or options.case
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)

    def save(report: dict[str, Any]) -> None:
        if folder is not None:
            (folder / f"{stem}.json").write_text(
                json.dumps(report, indent=1) + "\n", "utf-8"
            )
            (folder / f"{stem}.md").write_text(tables.report(report), "utf-8")

    screen = Screen(sys.stderr)
    report = conductor.measure(
        options, command, save, lambda line: screen.write(f"{line}\n")
    )
    print(tables.report(report))
    if flag_values.plot and folder is not None:
        plots.save(report, folder, stem)


def options_of(flag_values: flags.FlagValues) -> Options:
    """The options that the flags ask for.

    Raises:
        ValueError: A name is unknown, or a number is invalid or too small.
    """
    fv = flag_values
    case, replicas = _case_and_replicas(fv)
    return Options(
        case=case,
        replicas=replicas,
        models=tuple(map(expanded, fv.model)),
        batch=fv.batch,
        rows=fv.rows,
        seconds=fv.seconds,
        repetitions=fv.repetitions,
        contenders=tuple(fv.contenders),
        devices=fv.devices,
        weak=fv.weak,
        odd_rows=fv.odd_rows,
        seed=fv.seed,
    )


def _case_and_replicas(flag_values: flags.FlagValues) -> tuple[str, tuple[int, ...]]:
    if not flag_values.replicas_per_device:
        return flag_values.case, _numbers("replicas", flag_values)
    for name in ("case", "replicas"):
        if flag_values[name].present:
            raise ValueError(
                "--replicas_per_device stands for --case=one_device and its "
                f"--replicas, and does not go with --{name}. Leave one of them out."
            )
    return "one_device", _numbers("replicas_per_device", flag_values)


def _numbers(name: str, flag_values: flags.FlagValues) -> tuple[int, ...]:
    words: list[str] = flag_values[name].value or []
    try:
        return tuple(int(word) for word in words)
    except ValueError as error:
        raise ValueError(
            f"--{name}={','.join(words)}. Expected integers such as 1,2,4."
        ) from error
