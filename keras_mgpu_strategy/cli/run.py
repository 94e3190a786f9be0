"""The flags of `mgpu predict`, and the run that they ask for. Imports no TensorFlow."""

import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from absl import flags

from keras_mgpu_strategy.cli.help import PREDICT
from keras_mgpu_strategy.cli.values import PARSERS, models_of, path_of
from keras_mgpu_strategy.formats.registry import output_format
from keras_mgpu_strategy.outputs.shards import Shard
from keras_mgpu_strategy.sources.pad import Pad
from keras_mgpu_strategy.system.signals import stopping_signals

TABLE_FLAGS = ("columns", "read_options", "missing_as_nan")
IMAGE_FLAGS = ("image_size", "preprocess", "on_bad_file")
_PAD_FLAGS = ("pad_value", "pad_lengths", "pad_side")
_PAD_FLAGS += ("max_tokens", "truncate", "unmasked")
_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "reading": (*TABLE_FLAGS, *IMAGE_FLAGS),
    "scope": ("devices", "replicas_per_device"),
    "loading": (
        *("engine", "precision", "outputs", "output_dtype"),
        *("combine", "views", "compile", "jit_compile", "profile", "tuning"),
        *("custom_objects", "safe_mode"),
    ),
    "ray": ("num_actors", "cpus_per_actor", "ray_address"),
    "running": (
        *("method", "k", "from_logits", "keep", "labels", "metrics"),
        *("batch_size", "pad", "resume", "overwrite"),
        *("shard", "on_nonfinite", "stop_on", "verbose"),
    ),
}


@dataclasses.dataclass(frozen=True)
class PredictRun:
    """What a user asked for, free of contradictions; dicts hold only what was given."""

    models: tuple[pathlib.Path, ...]
    inputs: tuple[pathlib.Path, ...]
    output: pathlib.Path
    reading: dict[str, Any]  # arguments of a class of `mgpu.files`
    scope: dict[str, Any]  # of `scope()`
    loading: dict[str, Any]  # of `load`; names of modules for `custom_objects`
    ray: dict[str, Any]  # of `RayOptions`
    running: dict[str, Any]  # of `Predictor.predict_to`
    stopping: tuple[int, ...]  # numbers of signals

    @property
    def is_ray(self) -> bool:
        """Whether each device has a process of its own."""
        return self.loading.get("engine") == "ray"

    @property
    def shard(self) -> Shard | None:
        """Which range of the rows it runs."""
        return Shard(*self.running["shard"]) if "shard" in self.running else None

    @property
    def labels(self) -> pathlib.Path | str | None:
        """A file of labels, or the name of a column of the input."""
        return self.running.get("labels")

    @property
    def own_module(self) -> str | None:
        """The module of the user's function that prepares images, if any."""
        module, colon, _ = self.reading.get("preprocess", "").partition(":")
        return module if colon else None


def define_flags(flag_values: flags.FlagValues) -> None:
    """Adds the flags that the help lists; one that is not given is None."""
    for name, value in re.findall(r"^  --(?:no)?(\w+)=?(.*)$", PREDICT, re.M):
        same: Any = {"name": name, "default": None, "help": None}
        same["flag_values"] = flag_values
        if not value:
            flags.DEFINE_boolean(**same)
        elif value == "N":
            flags.DEFINE_integer(**same, lower_bound=1)
        elif "," in value:
            flags.DEFINE_list(**same)
        elif value == value.lower():
            flags.DEFINE_enum(**same, enum_values=value.split("|"))
        else:
            flags.DEFINE_string(**same)


def run_of(arguments: Sequence[str], flag_values: flags.FlagValues) -> PredictRun:
    """Returns what a command line asks for; a `ValueError` for contradictions."""
    flag_of: dict[str, Any] = {name: flag_values[name] for name in flag_values}
    given = {name: flag.value for name, flag in flag_of.items() if flag.present}
    if not given.get("output"):
        raise ValueError(
            "predict needs --output=PATH. See mgpu predict --help for examples."
        )
    given |= {n: parse(given[n]) for n, parse in PARSERS.items() if n in given}
    padding = [name for name in _PAD_FLAGS if given.get(name, False) is not False]
    if padding:
        given["pad"] = Pad(**{n.removeprefix("pad_"): given[n] for n in padding})
    run = PredictRun(
        models=models_of(arguments[0]),
        inputs=tuple(map(path_of, arguments[1:])),
        output=given["output"],
        stopping=stopping_signals(given.get("stop_on", ())),
        **{
            name: {flag: given[flag] for flag in group if flag in given}
            for name, group in _ARGUMENTS.items()
        },
    )
    _check(run)
    return run


def _check(run: PredictRun) -> None:
    """Raises ValueError for flags that contradict each other."""
    if run.running.get("resume") and run.running.get("overwrite"):
        raise ValueError(
            "--resume continues what is there, --overwrite begins again. Give one of "
            "them."
        )
    if run.is_ray and "devices" in run.scope:
        raise ValueError(
            f"--devices={run.scope['devices']} does not go with --engine=ray, which "
            "gives each process its device. Give --num_actors."
        )
    if run.ray and not run.is_ray:
        raise ValueError(
            f"{', '.join(f'--{name}' for name in run.ray)} without --engine=ray, the "
            "only engine with processes. Add --engine=ray, or leave out the rest."
        )
    metrics = run.running.get("metrics")
    if metrics and not run.labels:
        raise ValueError(
            f"--metrics={','.join(metrics)} needs --labels=FILE, or --labels=COLUMN of "
            "the input."
        )
    method = run.running.get("method")
    flag = "from_logits" if run.running.get("from_logits") else "labels"
    if method == "predict" and (flag == "from_logits" or (run.labels and not metrics)):
        other = "Leave it out" if flag == "from_logits" else "Add --metrics=NAME"
        raise ValueError(
            f"--{flag} goes with the other methods; --method=predict writes what the "
            f"model returns. {other}, or use another method."
        )
    if method != "predict_top_k" and "k" in run.running:
        raise ValueError(
            f"--k={run.running['k']} goes with --method=predict_top_k, not with "
            f"{method or 'predict_proba'}. Add it, or leave --k out."
        )
    if "keep" in run.running and not output_format(run.output).is_table:
        raise ValueError(
            f"--keep goes with a .parquet or .csv output, not with {run.output}, "
            "which has no columns. Leave it out, or give --output=NAME.parquet."
        )
