"""Values that travel between the parts of the package.

Guarantees:

* Position travels with the data: every batch, on its way in and on its way out,
  carries the index of its first row in the user's input.
* Values are frozen and hold host memory only (NumPy arrays), never device tensors.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import tensorflow as tf

Nest: TypeAlias = Any
"""A leaf, or dicts, lists and tuples of leaves; as `tf.nest` understands them."""


def cut(nest: Nest, start: int, stop: int | None = None) -> Nest:
    """Rows `start` to `stop` of a nest of arrays, as views; None stands for the end."""
    return tf.nest.map_structure(lambda leaf: leaf[start:stop], nest)


@dataclasses.dataclass(frozen=True, slots=True)
class Undeclared:
    """Stands for the inputs of a model that declares none: any number, of any shape.

    Args:
        floats: The dtype that floats are converted to; None to keep theirs.
    """

    floats: tf.DType | None


class DeclaredInput(tf.TensorSpec):
    """What a Keras model declares about one of its inputs.

    Args:
        shape, dtype, name: Of the input, including the batch axis.
        optional: Whether it may be absent; the model is then given None.
        stays_sparse: Whether sparse rows reach its layers as a `tf.SparseTensor`;
            otherwise they arrive dense.
    """

    def __init__(
        self,
        shape: Any,
        dtype: tf.DType,
        name: str,
        *,
        optional: bool = False,
        stays_sparse: bool = False,
    ):
        super().__init__(shape, dtype, name)
        self.optional = optional
        self.stays_sparse = stays_sparse

    def __reduce__(self) -> tuple[Any, ...]:
        """Keeps, in another process, what `tf.TensorSpec` does not store."""
        details = {"optional": self.optional, "stays_sparse": self.stays_sparse}
        given = (self.shape, self.dtype, self.name)
        return functools.partial(DeclaredInput, **details), given


@dataclasses.dataclass(frozen=True, slots=True)
class InputBatch:
    """Consecutive input rows that share one shape per row.

    Args:
        start: Index of the first row in the user's input.
        num_rows: Number of rows; the same for every leaf.
        inputs: Nest of NumPy arrays, each of shape `(num_rows, ...)`.
    """

    start: int
    num_rows: int
    inputs: Nest


@dataclasses.dataclass(frozen=True, slots=True)
class RowMarks:
    """What a source knows about rows besides what the model is given.

    Args:
        names: A name for each row, such as the file that it was read from, or None.
        missing: Boolean array of shape `(num_rows,)`, True for the rows that could not
            be read and whose results mean nothing; None if all were read.
        kept: A `pyarrow.Table` of columns that are stored beside the results, or None.
        targets: `(y,)` or `(y, sample_weight)`, nests of NumPy arrays, or None.
    """

    names: Sequence[str] | None = None
    missing: np.ndarray | None = None
    kept: Any = None
    targets: tuple[Nest, ...] | None = None

    def between(self, start: int, stop: int | None = None) -> "RowMarks":
        """The marks of some of the rows, counted from the first of these."""
        some = slice(start, stop)
        return RowMarks(
            None if self.names is None else self.names[some],
            None if self.missing is None else self.missing[some],
            None if self.kept is None else _rows_of(self.kept, some),
            None if self.targets is None else cut(self.targets, start, stop),
        )


NO_MARKS = RowMarks()


def _rows_of(table: Any, some: slice) -> Any:
    start, stop, _ = some.indices(table.num_rows)
    return table.slice(start, max(stop - start, 0))


class _Bare(str):
    __repr__ = str.__str__


@dataclasses.dataclass(frozen=True, slots=True)
class HostBatch:
    """Consecutive rows of results, in host memory.

    Args:
        start: Index in the user's input of the row that the first result belongs to.
        outputs: Nest of NumPy arrays of shape `(num_rows, ...)`, as the model's output;
            `tf.RaggedTensor` (`Ragged` in the package) where rows differ in length.
        marks: What else is known about these rows.
    """

    start: int
    outputs: Nest
    marks: RowMarks = NO_MARKS

    @property
    def num_rows(self) -> int:
        """Number of rows, read from the first output."""
        return int(tf.nest.flatten(self.outputs)[0].shape[0])

    @property
    def num_bytes(self) -> int:
        """Bytes of all outputs."""
        return sum(array.nbytes for array in tf.nest.flatten(self.outputs))

    @property
    def stop(self) -> int:
        """Index of the first row after this batch."""
        return self.start + self.num_rows

    def __repr__(self) -> str:
        """Rows, shapes and dtypes, and which marks there are."""
        shown = tf.nest.map_structure(
            lambda array: _Bare(f"{array.shape} {array.dtype}"), self.outputs
        )
        names = [field.name for field in dataclasses.fields(RowMarks)]
        marks = ", ".join(x for x in names if getattr(self.marks, x) is not None)
        rest = f"; marks: {marks}" if marks else ""
        return f"HostBatch(rows {self.start} to {self.stop}: {shown}{rest})"


@dataclasses.dataclass(frozen=True, slots=True)
class Feeding:
    """What a model is given of the user's input.

    Args:
        whole: "keras" or "tf_keras", whose form of whole elements, with targets and
            weights, a user's `predict_step` is given; None for x alone.
        raw: Whether the model's own preprocessing comes first, which is given rows
            unchanged: floats keep their dtype, and a list is one array.
        own_batches: Whether it has its own `predict_on_batch`, which is not run.
    """

    whole: str | None = None
    raw: bool = False
    own_batches: bool = False


X_ALONE = Feeding()


@dataclasses.dataclass(frozen=True, slots=True)
class NamedRows:
    """Rows that are not held but named, for another process to read.

    Args:
        key: Distinguishes inputs, so that each is opened once.
        open_fn: Opens the input; can be pickled.
        start: Index of the first row.
        stop: Index one past the last row.
    """

    key: str
    open_fn: Callable[[], "Source"]
    start: int
    stop: int

    def __getitem__(self, rows: slice) -> "NamedRows":
        """Some of the rows, counted from the first of these."""
        first, stop, _ = rows.indices(self.stop - self.start)
        return dataclasses.replace(
            self, start=self.start + first, stop=self.start + max(stop, first)
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """What distinguishes the rows of an input from those of another.

    Args:
        about: JSON values, by names for users; equal for the same rows.
        times: When its files were changed, if `about` holds only samples of them.
        digest: Reads all of these files, while the function it is given says to
            continue. Returns a digest, or None if that said no.
    """

    about: dict[str, Any] = dataclasses.field(default_factory=dict)
    times: str | None = None
    digest: Callable[[Callable[[], bool]], str | None] | None = None


class Source(Protocol):
    """Rows that can be read in order, from a given row onwards.

    A source may also have a method `marks(start, stop) -> RowMarks`, asked about rows
    after they were read, and a method `origin() -> Origin`, called before.
    """

    @property
    def num_rows(self) -> int | None:
        """Number of rows, or None if only known by reading to the end."""

    @property
    def spec(self) -> Nest:
        """Nest of `tf.TensorSpec` of what `batches` yields.

        The batch axis is None, and so is every axis known to vary. A source of
        unknown content (a generator) reads its first batch ahead to answer.
        """

    def batches(self, batch_size: int, start: int = 0) -> Iterator[InputBatch]:
        """Yields consecutive batches, the first of which begins at row `start`.

        A batch has `batch_size` rows, unless the input ends or the shape of the
        rows changes after it. Batches are cut at row `start + k * batch_size`
        as long as the shape of the rows does not change.
        """
        ...
