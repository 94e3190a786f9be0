"""The flags of `predict_benchmark.py`, and what it does. Imports no TensorFlow.

Guarantees:

* Bad flags are reported before anything is measured.
* With `--output`, the folder has the report as JSON and Markdown after each job.
"""

import json
import pathlib
import shlex
import sys
from typing import Any

from absl import flags

from keras_mgpu_strategy.benchmark.command import numbers_of
from keras_mgpu_strategy.system.environment import expanded
from keras_mgpu_strategy.system.screen import Screen
from suite import catalog, conductor, plots, tables
from suite.jobs import Options

_LISTS = {
    "replicas": "Numbers of replicas, such as 1,2,4. Each gets a process of its own.",
    "model": f"{', '.join(catalog.MODELS)}, or paths of .keras or HDF5 files. Default: "
    "those of the case.",
    "contenders": f"{', '.join(catalog.CONTENDERS)}. Default: all that the case has.",
    "replicas_per_device": "Numbers of replicas that share one device, such as 1,2,4: "
    "does that pay? Short for --case=one_device --replicas=LIST.",
}
_NUMBERS = {
    "batch": (None, "Rows of one replica in a batch."),
    "rows": (
        None,
        "Rows of a sample; with --weak those of one replica. Default: as many as keep "
        "Keras busy for --seconds.",
    ),
    "seconds": (3.0, "Aimed-at length of a sample."),
    "repetitions": (5, "Samples of each contender."),
    "seed": (0, "Of rows and weights."),
}
_SWITCHES = {
    "weak": (False, "Let the rows grow with the replicas."),
    "odd_rows": (True, "Try a number of rows that nothing divides after the timing."),
    "plot": (False, "Also write pictures to --output; needs the plot extra."),
}
_TEXTS = {
    "output": "<DIR>: Folder for the report. Default: only print it.",
    "name": "<NAME>: Begins the names of the files in --output. Default: the case.",
}


def define_flags(flag_values: flags.FlagValues) -> None:
    """Adds the flags of `predict_benchmark.py`."""
    to: Any = {"flag_values": flag_values}
    cases = "; ".join(f"{name}: {text}" for name, text in catalog.CASES.items())
    flags.DEFINE_enum("case", "throughput", [*catalog.CASES], f"{cases}.", **to)
    text = "auto takes GPUs where there are any, else virtual CPU devices."
    flags.DEFINE_enum("devices", "auto", ["auto", "gpu", "cpu"], text, **to)
    for name, text in _LISTS.items():
        default = ["1", "2"] if name == "replicas" else []
        flags.DEFINE_list(name, default, f"<LIST>: {text}", **to)
    for name, (default, text) in _NUMBERS.items():
        define = flags.DEFINE_float if name == "seconds" else flags.DEFINE_integer
        define(name, default, f"<N>: {text}", **to)
    for name, (default, text) in _SWITCHES.items():
        flags.DEFINE_boolean(name, default, text, **to)
    for name, text in _TEXTS.items():
        flags.DEFINE_string(name, None, text, **to)


def run(flag_values: flags.FlagValues) -> None:
    """Measures, prints the table and writes the files."""
    options = options_of(flag_values)
    command = shlex.join(["python", "benchmarks/predict_benchmark.py", *sys.argv[1:]])
    output = flag_values.output
    folder = None if output is None else pathlib.Path(expanded(output))
    if flag_values.plot and folder is None:
        raise ValueError("--plot needs --output=DIR, the folder for the pictures.")
    if flag_values.plot:
        plots.load_pyplot()
    stem = flag_values.name or options.case
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)

    def save(report: dict[str, Any]) -> None:
        if folder is not None:
            text = json.dumps(report, indent=1) + "\n"
            (folder / f"{stem}.json").write_text(text, "utf-8")
            (folder / f"{stem}.md").write_text(tables.report(report), "utf-8")

    screen = Screen(sys.stderr)
    report = conductor.measure(
        options, command, save, lambda line: screen.write(f"{line}\n")
    )
    print(tables.report(report))
    if flag_values.plot and folder is not None:
        plots.save(report, folder, stem)


def options_of(flag_values: flags.FlagValues) -> Options:
    """The options that the flags specify."""
    fv = flag_values
    case, replicas = _case_and_replicas(fv)
    return Options(
        case=case,
        replicas=replicas,
        models=tuple(map(expanded, fv.model)),
        contenders=tuple(fv.contenders),
        **{name: fv[name].value for name in ("devices", "weak", "odd_rows", *_NUMBERS)},
    )


def _case_and_replicas(flag_values: flags.FlagValues) -> tuple[str, tuple[int, ...]]:
    if not flag_values.replicas_per_device:
        return flag_values.case, numbers_of(flag_values, "replicas")
    for name in ("case", "replicas"):
        if flag_values[name].present:
            raise ValueError(
                "--replicas_per_device stands for --case=one_device and its "
                f"--replicas, and does not go with --{name}. Leave one of them out."
            )
    return "one_device", numbers_of(flag_values, "replicas_per_device")
