"""The options of a user, and the jobs that follow from them.

A job is measured in a new process, since logical devices cannot be changed once
TensorFlow has started. Imports no TensorFlow.

Guarantees:

* Errors in the options are found before the first job starts.
* Under strong scaling all replica counts of one model get the same rows, under weak
  scaling the same rows per replica.
"""

import dataclasses
import importlib.util
import math
import pathlib
from collections.abc import Iterator

from suite import catalog

_DEFAULT_ARGUMENTS = ("defaults", "small_calls", "memory")
_OTHER_BATCH = 32
_MODEL_SUFFIXES = (".keras", ".h5", ".hdf5")


@dataclasses.dataclass(frozen=True)
class Options:
    """What to measure.

    Args:
        case: A name of `catalog.CASES`.
        replicas: Numbers of replicas; under `one_device`, on that device.
        models: Names in `catalog.MODELS`, or paths of Keras model files; empty for
            those of the case.
        batch: Per-replica batch; None for the model's own.
        rows: Rows of a sample (of one replica under weak scaling); None finds as many
            as keep Keras busy for `seconds`.
        seconds: Target length of a sample.
        repetitions: Samples of each contender.
        contenders: Names in `catalog.CONTENDERS`; empty for all of the case.
        devices: `"auto"` (GPUs if there are any), `"gpu"` or `"cpu"`.
        weak: Whether rows grow with the replicas.
        odd_rows: Whether to try, after the timing, a number of rows that is divisible
            by neither batch nor replicas.
        seed: Seed of rows and weights.

    Raises:
        ValueError: An unknown name, or a number below its minimum.
    """

    case: str = "throughput"
    replicas: tuple[int, ...] = (1, 2)
    models: tuple[str, ...] = ()
    batch: int | None = None
    rows: int | None = None
    seconds: float = 3.0
    repetitions: int = 5
    contenders: tuple[str, ...] = ()
    devices: str = "auto"
    weak: bool = False
    odd_rows: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the values."""
        _check_name("case", self.case, catalog.CASES)
        for name in self.contenders:
            _check_name("contenders", name, catalog.CASE_CONTENDERS[self.case])
        for model in self.models:
            _check_model(model)
        if not self.replicas:
            raise ValueError("replicas is empty. Expected numbers such as 1,2,4.")
        least = {
            "replicas": min(self.replicas),
            "repetitions": self.repetitions,
            "batch": self.batch,
            "rows": self.rows,
        }
        for name, value in least.items():
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}. Expected 1 or more.")
        if self.seconds <= 0:
            raise ValueError(f"seconds={self.seconds}. Expected more than 0.")


@dataclasses.dataclass(frozen=True)
class Job:
    """One model at one batch on one number of replicas.

    Args:
        model: As one of `Options.models`.
        replicas: Number of replicas.
        batch: Per-replica batch; None for each side's default arguments.
        reference_batch: Batch of the plain model if its results are the reference.
        rows: Rows of a sample; None to find a number.
        row_multiple: A number of rows that is found is a multiple of this.
        contenders: What to measure.
        case, seconds, repetitions, devices, odd_rows, seed: As in `Options`.
    """

    case: str
    model: str
    replicas: int
    batch: int | None
    reference_batch: int | None
    rows: int | None
    row_multiple: int
    seconds: float
    repetitions: int
    contenders: tuple[str, ...]
    devices: str
    odd_rows: bool
    seed: int


@dataclasses.dataclass(frozen=True)
class Series:
    """The jobs of one model and batch, one for each number of replicas.

    Args:
        options: What the user asked for.
        model: As one of `Options.models`.
        batch: As in `Job`.
    """

    options: Options
    model: str
    batch: int | None

    def jobs(self, replicas: int, found: tuple[int, int] | None) -> list[Job]:
        """The jobs for a number of replicas; one per contender for the memory case.

        `found` has the replicas and rows of the series' first job, once it is done.
        """
        names = self.options.contenders or _by_default(self.options.case)
        alone = self.options.case == "memory"
        groups = [(name,) for name in names] if alone else [names]
        return [self._job(replicas, found, group) for group in groups]

    def _job(
        self,
        replicas: int,
        found: tuple[int, int] | None,
        contenders: tuple[str, ...],
    ) -> Job:
        options = self.options
        return Job(
            case=options.case,
            model=self.model,
            replicas=replicas,
            batch=self.batch,
            reference_batch=self._reference_batch(),
            rows=self._rows(replicas, found),
            row_multiple=math.lcm(*options.replicas) * (self._reference_batch() or 1),
            seconds=options.seconds,
            repetitions=options.repetitions,
            contenders=contenders,
            devices=options.devices,
            odd_rows=options.odd_rows and options.case == "throughput",
            seed=options.seed,
        )

    def _reference_batch(self) -> int | None:
        """A size that is fast in Keras, since it also determines the sample's size."""
        if self.batch is None and self.options.case == "one_device":
            return max(_known_batches(self.options, self.model))
        return self.batch

    def _rows(self, replicas: int, found: tuple[int, int] | None) -> int | None:
        rows = self.options.rows
        if rows is not None:
            return rows * replicas if self.options.weak else rows
        if found is None:
            return None
        first_replicas, first_rows = found
        return (
            first_rows // first_replicas * replicas if self.options.weak else first_rows
        )


def series(options: Options) -> Iterator[Series]:
    """Yields the series of all models and batches."""
    for model in options.models or catalog.CASE_MODELS[options.case]:
        for batch in _batches(options, model):
            yield Series(options, model, batch)


def _batches(options: Options, model: str) -> tuple[int | None, ...]:
    if options.case in _DEFAULT_ARGUMENTS:
        return (options.batch,)
    known = _known_batches(options, model)
    return (*known, None) if options.case == "one_device" else known


def _known_batches(options: Options, model: str) -> tuple[int, ...]:
    if options.batch is not None:
        return (options.batch,)
    return catalog.MODELS.get(model, (_OTHER_BATCH,))


def _by_default(case: str) -> tuple[str, ...]:
    """The contenders of a case whose packages are installed."""

    def is_there(name: str) -> bool:
        package = catalog.NEEDS.get(name)
        return package is None or importlib.util.find_spec(package) is not None

    names = catalog.BY_DEFAULT.get(case, catalog.CASE_CONTENDERS[case])
    return tuple(filter(is_there, names))


def _check_name(option: str, name: str, known: object) -> None:
    names = tuple(known)  # pyright: ignore[reportArgumentType]
    if name not in names:
        raise ValueError(f"{option}={name!r}. Expected one of: {', '.join(names)}.")


def _check_model(model: str) -> None:
    if model in catalog.MODELS:
        return
    path = pathlib.Path(model)
    if path.suffix not in _MODEL_SUFFIXES or not path.is_file():
        raise ValueError(
            f"model={model!r} is neither a model of the suite "
            f"({', '.join(catalog.MODELS)}) nor a file ending in "
            f"{', '.join(_MODEL_SUFFIXES)}."
        )
