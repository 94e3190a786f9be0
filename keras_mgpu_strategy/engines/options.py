"""How a Predictor runs: checked when it is created, the same for all of its runs."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, Literal, get_args

from keras_mgpu_strategy.devices.names import short_name
from keras_mgpu_strategy.models import View, check_views, described

EngineName = Literal["mirrored", "threads", "ray"]
Compile = Literal["auto", "plain", "frozen", "xla"]
Precision = Literal["float32", "bfloat16", "float16"]
OutputDtype = Literal["float16", "float32", "float64"]
Combine = Literal["mean", "gmean", "vote", "stack", "mean_std"]

_MOST_SHOWN = 4
_ALLOWED = {
    "engine": list(get_args(EngineName)),
    "compile": list(get_args(Compile)),
    "jit_compile": [False, True, "auto"],
    "in_flight": ["auto", 1, 2, 3, 4],
    "precision": [None, *get_args(Precision)],
    "output_dtype": [None, *get_args(OutputDtype)],
    "combine": [None, *get_args(Combine)],
}


@dataclasses.dataclass(frozen=True)
class Options:
    """How a Predictor runs; see there."""

    engine: EngineName = "threads"
    compile: Compile = "auto"
    jit_compile: bool | Literal["auto"] = "auto"
    in_flight: int | Literal["auto"] = "auto"
    profile: str | os.PathLike[str] | None = None
    precision: Precision | None = None
    outputs: str | Sequence[str] | None = None
    output_dtype: OutputDtype | None = None
    combine: Combine | None = None
    views: Sequence[str | View] | None = None

    def __post_init__(self) -> None:
        """Checks the values."""
        for name, allowed in _ALLOWED.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"{name}={value!r}. Expected one of {allowed}.")
        if not isinstance(self.profile, str | os.PathLike | None):
            raise TypeError(
                f"profile={self.profile!r} of type {type(self.profile).__name__}. "
                "Expected the path of a folder, or None."
            )
        if self.compile not in ("auto", self.step):
            raise ValueError(
                f"compile={self.compile!r} with jit_compile={self.jit_compile}, which "
                f"is Keras' spelling of compile={self.step!r}. Pass one of them."
            )
        _check_outputs(self.outputs)
        check_views(self.views)

    def for_models(self, num_models: int) -> "Options":
        """With how outputs of so many models, or of views, become one, if they do."""
        if num_models > 1 or self.views is not None:
            return dataclasses.replace(self, combine=self.combine or "mean")
        if self.combine is not None:
            raise ValueError(
                f"Received combine={self.combine!r} with one model. Pass a list of "
                "several models, or views=, or leave combine out."
            )
        return self

    @property
    def step(self) -> Compile:
        """How the model is compiled, in whichever spelling it was asked for."""
        if self.jit_compile == "auto":
            return self.compile
        return "xla" if self.jit_compile else "plain"

    @property
    def output_names(self) -> tuple[str, ...] | None:
        """Names of the layers whose outputs are the results; None for the model's."""
        one = (self.outputs,) if isinstance(self.outputs, str) else self.outputs
        return None if one is None else tuple(one)

    @property
    def described_views(self) -> list[str] | None:
        """What distinguishes the views from others; None if there are none."""
        return None if self.views is None else described(self.views)

    def chunks(self, *, on_gpus: bool) -> dict[str, int]:
        """Chunks for each device: `in_flight`, and `ahead`, for copies and reads."""
        automatic = 3 if on_gpus else 1
        chosen = automatic if self.in_flight == "auto" else int(self.in_flight)
        return {"in_flight": chosen, "ahead": 3 if on_gpus else 1}

    def describe(
        self, names: Sequence[str], dtypes: Sequence[str], devices: Sequence[str]
    ) -> str:
        """Such as "'digits', 2 replicas: GPU:0, GPU:1; threads, float32".

        `dtypes` are those of the floats that are computed with. Options that are not
        the defaults follow.
        """
        one, several = "replica", "replicas"
        if self.engine == "ray":
            one, several = "process", "processes"
        where = f"{len(devices)} {one if len(devices) == 1 else several}"
        if devices:
            where += f": {_listed(list(map(short_name, devices)))}"
        how = [self.engine, *([" and ".join(dtypes)] if dtypes else [])]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name not in ("engine", "precision") and value != field.default:
                how.append(f"{field.name}={value!r:.60}")
        return f"{_listed(list(map(repr, names)))}, {where}; {', '.join(how)}"


def _listed(names: list[str]) -> str:
    if len(names) > _MOST_SHOWN:
        names = [*names[:2], "...", names[-1]]
    return ", ".join(names)


def _check_outputs(outputs: Any) -> None:
    is_sequence = isinstance(outputs, Sequence) and not isinstance(outputs, bytes)
    names = [outputs] if isinstance(outputs, str) else outputs
    if outputs is None:
        return
    expected = "Expected the name of a layer, a list of names, or None."
    if not is_sequence or not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"outputs={outputs!r:.80} of type {type(outputs).__name__}. {expected}"
        )
    if not names or not all(names):
        raise ValueError(f"outputs={outputs!r:.80} names nothing. {expected}")
    if len({*names}) < len(names):
        raise ValueError(
            f"outputs={outputs!r:.80} has a name twice. Expected each name once."
        )
