"""One input whose rows may differ in length, read by rows."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.sources.casting import cast_for
from keras_mgpu_strategy.sources.leaf import Leaf, Memory
from keras_mgpu_strategy.sources.row_errors import BadRow, Fail, failing, failing_tokens
from keras_mgpu_strategy.sources.row_lists import RowList, kind_of_values
from keras_mgpu_strategy.types import Ragged


@dataclasses.dataclass(frozen=True, slots=True)
class RaggedLeaf(Leaf):
    """A `Leaf` that is read as `Ragged`; `lengths` are those of all rows.

    `error` is what is wrong with one of them, to be raised with its number.
    """

    lengths: np.ndarray = dataclasses.field(kw_only=True)
    error: BadRow | None = None

    @property
    def spec(self) -> tf.TensorSpec:
        """Spec of the rows, with unknown batch axis and length."""
        return tf.TensorSpec((None, None, *self.shape[2:]), self.cast.dtype)

    def view(self, start: int, stop: int, fail: Fail) -> tuple[Any, bool]:
        """Returns rows, and whether they lie in the memory that they came in."""
        if self.shape[1] is not None:
            rows, is_shared = Leaf.view(self, start, stop, fail)
            return rows_of_one_length(rows), is_shared
        try:
            rows = self.fetch(start, stop).packed()
        except BadRow as bad:
            fail(bad.index, str(bad))
        values = self.cast.convert(rows.values, failing_tokens(rows.offsets[1:], fail))
        is_shared = np.may_share_memory(values, rows.values)
        return Ragged(values, rows.offsets), is_shared


def ragged_leaf(x: "Ragged | RowList", path: str) -> RaggedLeaf:
    """Returns an unfitted leaf of rows that differ in length."""
    is_flat = isinstance(x, Ragged)
    dtype = kind_of_values(x.values) if isinstance(x, Ragged) else x.dtype
    return RaggedLeaf(
        path,
        x.shape,
        dtype,
        lambda a, b: x[a:b],
        Memory.USERS if is_flat else Memory.NEW,
        not is_flat,
        cast_for(dtype, path),
        lengths=x.lengths,
        error=getattr(x, "error", None),
    )


def of_one_length(leaf: Leaf) -> RaggedLeaf:
    """Returns a leaf whose rows, of one length, are read as others are."""
    if len(leaf.shape) < 2:
        raise no_tokens(leaf.path, leaf.shape, is_text=leaf.stored.kind in "USTO")
    fields = {f.name: getattr(leaf, f.name) for f in dataclasses.fields(Leaf)}
    return RaggedLeaf(**fields, lengths=np.full(leaf.shape[0], leaf.shape[1]))


def no_tokens(path: str, shape: Any, *, is_text: bool = False) -> ValueError:
    """The error for rows that are single values."""
    said = (
        f"{path} has shape {tuple(shape)}, expected rows of tokens: an array of two "
        "axes or more, or a list of lists. "
    )
    if is_text:
        return ValueError(f"{said}Split strings first, e.g. by tf.strings.split.")
    return ValueError(
        f"{said}Elements of generators and data sets are batches: yield [row] or lists "
        "of rows, or call ragged_batch of the data set."
    )


def like(leaf: Leaf, first: Leaf, fail: Fail) -> Leaf:
    """Returns rows with tokens of the shape of those read first; else calls `fail`."""
    inner = first.shape[2:]
    if not isinstance(leaf, RaggedLeaf) or leaf.shape[2:] == inner:
        return leaf
    if leaf.lengths.any():
        fail(
            int((leaf.lengths > 0).argmax()),
            f"has tokens of shape {leaf.shape[2:]}, expected {inner} as in batch 0.",
        )
    none = Ragged.of_lengths(np.empty((0, *inner), first.stored), leaf.lengths)
    return ragged_leaf(none, leaf.path)


def rows_of_one_length(rows: np.ndarray) -> Ragged:
    """Returns an array of rows as `Ragged`, in the same memory if possible."""
    num_rows, length = rows.shape[:2]
    offsets = np.arange(num_rows + 1, dtype=np.int64) * length
    return Ragged(rows.reshape(num_rows * length, *rows.shape[2:]), offsets)


def check_rows(flat: Sequence[Leaf], first_row: int = 0) -> None:
    """Raises BadRow if a row cannot be used, or has other lengths in other inputs."""
    ragged = [leaf for leaf in flat if isinstance(leaf, RaggedLeaf)]
    for leaf in ragged:
        if leaf.error is not None:
            failing(leaf.path, first_row)(leaf.error.index, str(leaf.error))
    check_same_lengths([(leaf.path, leaf.lengths) for leaf in ragged], first_row)


def check_same_lengths(
    named: Sequence[tuple[str, np.ndarray]], first_row: int, where: str = ""
) -> None:
    """Raises BadRow if a row has other lengths in other inputs, given by name."""
    for name, lengths in named[1:]:
        first, expected = named[0]
        differ = lengths != expected
        if differ.any():
            row = int(differ.argmax())
            failing(f"{where}{first}", first_row)(
                row,
                f"has {expected[row]} tokens, but {name} has {lengths[row]}. Expected "
                "one length for all inputs of a row.",
            )
