"""How a Predictor runs: checked when it is created, the same for all of its runs."""

import dataclasses
import os
from typing import Literal, get_args

EngineName = Literal["mirrored", "threads", "ray"]
Precision = Literal["float32", "bfloat16", "float16"]
OutputDtype = Literal["float16", "float32", "float64"]

_ALLOWED = {
    "engine": list(get_args(EngineName)),
    "jit_compile": [False, True, "auto"],
    "in_flight": ["auto", 1, 2, 3, 4],
    "precision": [None, *get_args(Precision)],
    "output_dtype": [None, *get_args(OutputDtype)],
}


@dataclasses.dataclass(frozen=True)
class Options:
    """How a Predictor runs; see there."""

    engine: EngineName = "threads"
    jit_compile: bool | Literal["auto"] = "auto"
    in_flight: int | Literal["auto"] = "auto"
    profile: str | os.PathLike[str] | None = None
    precision: Precision | None = None
    output_dtype: OutputDtype | None = None

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

    def chunks(self, *, on_gpus: bool) -> dict[str, int]:
        """Chunks for each device: `in_flight`, and `ahead`, for copies and reads."""
        automatic = 3 if on_gpus else 1
        chosen = automatic if self.in_flight == "auto" else int(self.in_flight)
        return {"in_flight": chosen, "ahead": 3 if on_gpus else 1}
