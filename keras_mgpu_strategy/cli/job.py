"""What a command line of `mgpu predict` asks for. Imports no TensorFlow.

Guarantee: a `PredictJob` holds no flags that contradict each other.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from absl import flags

from keras_mgpu_strategy.formats.registry import output_suffixes
from keras_mgpu_strategy.outputs.shards import Shard
from keras_mgpu_strategy.system.environment import expanded
from keras_mgpu_strategy.system.signals import stopping_signals

_RAY_FLAGS = ("num_actors", "cpus_per_actor", "ray_address")
_LOADING = ("custom_objects", "safe_mode")
_OPTIONS = ("engine", "precision", "jit_compile", "profile", *_LOADING)
_IMAGE_FLAGS = ("image_size", "preprocess", "on_bad_file")
_TABLE_FLAGS = ("columns", "read_options", "missing_as_nan")
_READING = (*_TABLE_FLAGS, *_IMAGE_FLAGS)


@dataclasses.dataclass(frozen=True)
class PredictJob:
    """What a user asked `mgpu predict` to do.

    Args:
        model: Path of the model.
        inputs: Paths of the files of input rows, or of one folder.
        output: Path of what to write.
        shard: Which range of the rows to run, or None.
        labels: Path of a `.npy` file of true classes, or None.
        devices: As for `scope()`.
        replicas_per_device: As for `scope()`.
        reading: How to read `inputs`: arguments for a class of `mgpu.files`.
        options: Options of the Predictor that were given; for `custom_objects`, the
            names of modules.
        ray_options: Options of its processes that were given, if Ray is the engine.
        running: Further arguments of `Predictor.predict_to`.
    """

    model: pathlib.Path
    inputs: tuple[pathlib.Path, ...]
    output: pathlib.Path
    shard: Shard | None
    labels: pathlib.Path | None
    devices: str | None
    replicas_per_device: int
    reading: dict[str, Any]
    options: dict[str, Any]
    ray_options: dict[str, Any]
    running: dict[str, Any]

    def __post_init__(self) -> None:
        """Raises ValueError for flags that contradict each other."""
        _check_suffix(self.output)
        if self.running["resume"] and self.running["overwrite"]:
            raise ValueError(
                "--resume goes on with what is there, --overwrite begins again. Give "
                "one of them."
            )
        if self.is_ray and self.devices is not None:
            raise ValueError(
                f"--devices={self.devices} does not go with --engine=ray, which gives "
                "each process its device. Give --num_actors."
            )
        if self.ray_options and not self.is_ray:
            raise ValueError(
                f"{', '.join(f'--{name}' for name in self.ray_options)} without "
                "--engine=ray, which alone has processes. Give it, or leave them out."
            )
        if self.running["method"] == "predict":
            self._check_raw()
        if self.labels is not None:
            self._check_labels()
        stopping_signals(self.running["stop_on"])

    @property
    def is_ray(self) -> bool:
        """Whether each device has a process of its own."""
        return self.options.get("engine") == "ray"

    @property
    def rows(self) -> Any:
        """What is passed to the Python API: a path, or a list of several."""
        return self.inputs[0] if len(self.inputs) == 1 else list(self.inputs)

    @property
    def table_flags(self) -> list[str]:
        """The names in `reading` that are for tables."""
        return [name for name in self.reading if name in _TABLE_FLAGS]

    @property
    def image_flags(self) -> list[str]:
        """The names in `reading` that are for images."""
        return [name for name in self.reading if name in _IMAGE_FLAGS]

    def _check_raw(self) -> None:
        for name, is_given, why in (
            ("from_logits", self.running["from_logits"], "writes what the model"),
            ("labels", self.labels is not None, "writes whatever the model"),
        ):
            if is_given:
                raise ValueError(
                    f"--{name} goes with --method=predict_proba or predict_classes; "
                    f"--method=predict {why} returns."
                )

    def _check_labels(self) -> None:
        if self.output.suffix.lower() != ".npy":
            raise ValueError(
                f"--labels goes with a .npy output, not with {self.output}. Leave it "
                "out, or give --output=NAME.npy."
            )
        if self.shard is not None:
            raise ValueError("--labels goes with a whole run, not with --shard.")


def job_of(arguments: Sequence[str], fv: flags.FlagValues) -> PredictJob:
    """Returns what a command line asks for.

    Raises:
        ValueError: A flag is missing, or has an invalid value.
    """
    if not fv.output:
        raise ValueError(
            "predict needs --output=PATH. See mgpu predict --help for examples."
        )
    shard = None if fv.shard is None else _shard(fv.shard)
    running = {name: fv[name].value for name in ("method", "from_logits", "batch_size")}
    running |= {name: fv[name].value for name in ("resume", "overwrite")}
    return PredictJob(
        model=_path(arguments[0]),
        inputs=tuple(map(_path, arguments[1:])),
        output=_path(fv.output),
        shard=shard,
        labels=None if fv.labels is None else _path(fv.labels),
        devices=fv.devices,
        replicas_per_device=fv.replicas_per_device,
        reading={name: _reading(name, fv) for name in _READING if fv[name].present},
        options={name: fv[name].value for name in _OPTIONS if fv[name].present},
        ray_options={name: fv[name].value for name in _RAY_FLAGS if fv[name].present},
        running={
            **running,
            "on_nonfinite": fv.on_nonfinite,
            "stop_on": tuple(fv.stop_on or ()),
            "shard": None if shard is None else (shard.index, shard.count),
            "verbose": fv.verbose if fv.verbose == "auto" else int(fv.verbose),
        },
    )


def _path(text: str) -> pathlib.Path:
    return pathlib.Path(expanded(text))


def _reading(name: str, fv: flags.FlagValues) -> Any:
    parse = {"image_size": _image_size, "read_options": _read_options}.get(name)
    return fv[name].value if parse is None else parse(fv[name].value)


def _read_options(text: str) -> dict[str, Any]:
    try:
        options = json.loads(text)
    except (ValueError, RecursionError) as error:
        options = error
    if not isinstance(options, dict):
        raise ValueError(
            f"--read_options={text:.60}. Expected a JSON object of arguments for "
            """pandas.read_csv, such as --read_options='{"header": null}'."""
        )
    return options


def _shard(text: str) -> Shard:
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    try:
        return Shard(*map(int, match.groups())) if match else Shard(-1, 1)
    except ValueError:
        raise ValueError(
            f"--shard={text:.60}. Expected I/N with I from 0 to N-1, such as 0/8 for "
            "the first of 8 ranges of the rows."
        ) from None


def _image_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9][0-9]{0,4})[xX]([1-9][0-9]{0,4})", text)
    if match is None:
        raise ValueError(
            f"--image_size={text:.60}. Expected height and width in pixels, such as "
            "224x224."
        )
    return int(match[1]), int(match[2])


def _check_suffix(output: pathlib.Path) -> None:
    suffix = output.suffix.lower()
    suffixes = output_suffixes()
    if suffix in suffixes:
        return
    expected = f"a name that ends in one of {', '.join(suffixes)}"
    if suffix == ".npz":
        expected = (
            f"{output.with_suffix('.npy')}, a folder with a .npy file for each "
            "output where the model has several"
        )
    raise ValueError(f"--output={output} cannot be written. Expected {expected}.")
