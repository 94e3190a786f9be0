"""How a Predictor runs: checked when it is made, the same for all of its runs."""

import dataclasses
import os

from keras_mgpu_strategy.models import PRECISIONS

ENGINES = ("mirrored", "threads", "ray")


@dataclasses.dataclass(frozen=True)
class Options:
    """How a Predictor runs.

    Args:
        engine: `"threads"`: each device takes the next chunk when it is free.
            `"mirrored"`: all devices step together under `strategy.run`, fed by a
            distributed tf.data pipeline. `"ray"`: each device has a process of its own,
            on this machine or on a cluster; see `RayOptions`. Same results bit for bit.
        jit_compile: Whether XLA compiles the model. `"auto"`: on GPUs for which XLA is
            known to work, where every layer supports it, unless the model was compiled
            with `jit_compile=False` or TensorFlow's ops are to be deterministic.
        in_flight: Chunks that a device has to compute at a time, those included whose
            results are on their way to the host. More keep an accelerator busy while
            results are copied, and take memory; on a CPU they would take another
            replica's core. `"auto"`: 3 on GPUs, 1 on CPUs.
        profile: Folder for a trace of each run, which TensorBoard's profiler reads.
        precision: `"float32"`, `"bfloat16"` or `"float16"`: the model is rebuilt so
            that all its floats have that dtype; results of floats are float32. None:
            the model as it is.

    Raises:
        TypeError: `profile` is no path.
        ValueError: A value that is none of these.
    """

    engine: str = "threads"
    jit_compile: bool | str = "auto"
    in_flight: int | str = "auto"
    profile: str | os.PathLike[str] | None = None
    precision: str | None = None

    def __post_init__(self) -> None:
        """Checks the values."""
        choices = {
            "engine": list(ENGINES),
            "jit_compile": [False, True, "auto"],
            "in_flight": ["auto", 1, 2, 3, 4],
            "precision": [None, *PRECISIONS],
        }
        for name, allowed in choices.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"{name}={value!r}. Expected one of {allowed}.")
        if not isinstance(self.profile, str | os.PathLike | None):
            raise TypeError(
                f"profile={self.profile!r} of type {type(self.profile).__name__}. "
                "Expected the path of a folder, or None."
            )

    def chunks(self, *, on_gpus: bool) -> dict[str, int]:
        """Chunks for each device: `in_flight`, and those `ahead` of them.

        On a GPU two are on their way to it, and one is read or delivered. A CPU needs
        no copies.
        """
        automatic = 3 if on_gpus else 1
        chosen = automatic if self.in_flight == "auto" else int(self.in_flight)
        return {"in_flight": chosen, "ahead": 3 if on_gpus else 1}
