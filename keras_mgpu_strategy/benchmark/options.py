"""What `mgpu benchmark` is asked to measure. Imports no TensorFlow."""

import dataclasses
import pathlib

ENGINES = ("mgpu_threads", "mgpu_mirrored")
"""By default, `compile="auto"`."""
STEPS = ("mgpu_plain", "mgpu_frozen", "mgpu_xla")
"""The candidates of `compile=`, by name."""
RUNTIMES = ("onnxruntime", "openvino")
"""What else might run the model on a CPU, if it is installed."""
CONTENDERS = ("keras", "keras_strategy", *ENGINES, *STEPS, *RUNTIMES, "ray")
FEW = 32
"""Keras' default batch, for what has none."""
BUILT_IN = "mlp"
_MODEL_SUFFIXES = (".keras", ".h5", ".hdf5")


@dataclasses.dataclass(frozen=True)
class BenchmarkOptions:
    """What to measure, checked; a batch is a replica's, or None for defaults.

    Several `models` are measured together: their mean.

    `shared` replicas share a device. If `rows` is None, a multiple of `row_multiple` is
    found that keeps Keras busy for `seconds`.
    """

    models: tuple[str, ...] = (BUILT_IN,)
    batches: tuple[int | None, ...] = (32,)
    replicas: tuple[int, ...] = (1, 2)
    shared: bool = False
    devices: str = "auto"
    contenders: tuple[str, ...] = CONTENDERS[:-1]
    rows: int | None = None
    row_multiple: int = 1
    seconds: float = 2.0
    repetitions: int = 3

    def __post_init__(self) -> None:
        """Checks the values."""
        allowed = ("keras_strategy", *ENGINES) if self.shared else CONTENDERS
        for name in self.contenders:
            if name not in allowed:
                raise ValueError(
                    f"contenders={name!r}. Expected one of: {', '.join(allowed)}."
                )
        for model in self.models:
            path = pathlib.Path(model)
            is_file = path.suffix in _MODEL_SUFFIXES and path.is_file()
            if model != BUILT_IN and not is_file:
                raise ValueError(
                    f"model={model!r} is neither {BUILT_IN}, which is built in, nor an "
                    f"existing file that ends in {' or '.join(_MODEL_SUFFIXES)}."
                )
        least = {"batch": self.batches, "replicas": self.replicas}
        least |= {"rows": (self.rows,), "repetitions": (self.repetitions,)}
        for name, values in least.items():
            for value in values:
                if value is not None and value < 1:
                    raise ValueError(f"{name}={value}. Expected 1 or more.")
        if self.seconds <= 0:
            raise ValueError(f"seconds={self.seconds}. Expected more than 0.")
