"""Flags of `mgpu benchmark` and what it does. Imports no TensorFlow.

Bad flags are reported before anything is measured. With `--output`, the folder holds
the report as JSON and Markdown after each job: a model, a batch and a number of
replicas.
"""

import dataclasses
import json
import math
import pathlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags

from keras_mgpu_strategy.benchmark import processes, provenance, tables
from keras_mgpu_strategy.benchmark.options import CONTENDERS, BenchmarkOptions
from keras_mgpu_strategy.system import environment
from keras_mgpu_strategy.system.screen import Screen

_LISTS = {
    "model": "The path of a .keras or HDF5 file. Several, such as a.keras,b.keras, are "
    "measured together, beside a loop of Keras over them. Default: a small dense "
    "model.",
    "batch": "Rows of one replica in a batch, such as 32,1024; auto stands for each "
    "side's default. Default: 32.",
    "replicas": "Numbers of replicas, such as 1,2,4. Each gets a process of its own. "
    "Default: 1,2.",
    "replicas_per_device": "Numbers of replicas that share one device, such as 1,2,4: "
    "does that pay?",
    "contenders": f"{', '.join(CONTENDERS)}. Default: all but ray (onnxruntime "
    "and openvino on CPUs, if installed); mgpu_threads with --replicas_per_device.",
}
_NUMBERS = {
    "rows": "Rows of a sample. Default: as many as keep Keras busy for --seconds.",
    "seconds": "Target length of a sample. Default: 2.",
    "repetitions": "Samples of each contender. Default: 3.",
}


def define_flags(flag_values: flags.FlagValues) -> None:
    """Adds the flags of `mgpu benchmark`; defaults are those of `BenchmarkOptions`."""
    for name, text in _LISTS.items():
        flags.DEFINE_list(name, None, f"<LIST>: {text}", flag_values=flag_values)
    flags.DEFINE_enum(
        "devices",
        None,
        ["auto", "gpu", "cpu"],
        "auto, the default, takes GPUs if there are any, else virtual CPU devices.",
        flag_values=flag_values,
    )
    for name, text in _NUMBERS.items():
        define = flags.DEFINE_float if name == "seconds" else flags.DEFINE_integer
        define(name, None, f"<N>: {text}", flag_values=flag_values)
    text = "<DIR>: Folder for benchmark.md and benchmark.json. Default: only print."
    flags.DEFINE_string("output", None, text, flag_values=flag_values)


def run(_: object, flag_values: flags.FlagValues, argv: Sequence[str]) -> None:
    """Measures, prints the tables and writes the files."""
    options = options_of(flag_values)
    command = shlex.join(["mgpu", *argv[1:]])
    report = {"format": 1, "command": command, **provenance.describe()}
    report |= {"options": dataclasses.asdict(options), "runs": []}
    output = flag_values.output
    folder = output and pathlib.Path(environment.expanded(output))
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    for record in _measured(options):
        report["runs"].append(record)
        if folder:
            text = json.dumps(report, indent=1) + "\n"
            (folder / "benchmark.json").write_text(text, "utf-8")
            (folder / "benchmark.md").write_text(tables.report(report), "utf-8")
    print(tables.report(report))


def options_of(flag_values: flags.FlagValues) -> BenchmarkOptions:
    """The options that the flags ask for; a ValueError names what is wrong."""
    fv = flag_values
    shared = bool(fv.replicas_per_device)
    if shared and fv.replicas:
        raise ValueError(
            "--replicas_per_device stands in place of --replicas, and does not go with "
            "it. Leave one of them out."
        )
    given = {
        "models": tuple(map(environment.expanded, fv.model or ())),
        "batches": numbers_of(fv, "batch", "auto"),
        "replicas": numbers_of(fv, "replicas_per_device" if shared else "replicas"),
        "contenders": tuple(fv.contenders or ("mgpu_threads",) * shared),
        **{name: fv[name].value for name in ("devices", *_NUMBERS)},
    }
    given = {name: value for name, value in given.items() if value not in (None, ())}
    return BenchmarkOptions(shared=shared, **given)


def numbers_of(
    fv: flags.FlagValues, name: str, none: str | None = None
) -> tuple[Any, ...]:
    """The integers of a list flag, or None for the word `none`."""
    words: list[str] = fv[name].value or []
    try:
        return tuple(None if word == none else int(word) for word in words)
    except ValueError as error:
        either = f", or {none}" if none else ""
        raise ValueError(
            f"--{name}={','.join(words)}. Expected integers such as 1,2,4{either}."
        ) from error


def _measured(options: BenchmarkOptions) -> Iterator[dict[str, Any]]:
    """Yields the record of each job; all numbers of replicas get the same rows."""
    screen = Screen(sys.stderr)
    # Once for all jobs, whose processes inherit the quiet start of TensorFlow.
    with environment.quiet_start():
        shown = ",".join(options.models)
        for batch in options.batches:
            rows, multiple = options.rows, math.lcm(*options.replicas) * (batch or 1)
            for count in options.replicas:
                size = f"batch {batch or 'auto'}"
                screen.write(f"{shown}, {size}, replicas {count} ...\n")
                one = {"batches": [batch], "replicas": [count]}
                more = {"rows": rows, "row_multiple": multiple}
                record = processes.run_job(dataclasses.replace(options, **one, **more))
                rows = record["rows"]
                yield record
