"""Inputs that come in their own batches: generators, PyDatasets, iterators.

Batches are read in order, in the thread that asks for rows, and checked against the
model and the first batch; the user's exceptions propagate unchanged. A generator is
closed if reading stops early, and left open after a normal end.
"""

import dataclasses
import itertools
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeAlias

from keras_mgpu_strategy.digests.samples import digest_of_array
from keras_mgpu_strategy.sources.arrays import Leaves, as_leaves
from keras_mgpu_strategy.sources.beside import Beside
from keras_mgpu_strategy.sources.leaf import Leaf, Memory
from keras_mgpu_strategy.sources.origins import as_array
from keras_mgpu_strategy.sources.ragged_leaf import RaggedLeaf, check_rows, like
from keras_mgpu_strategy.sources.rebatch import RowBuffer, Rows
from keras_mgpu_strategy.sources.row_errors import failing
from keras_mgpu_strategy.sources.row_lists import refusing_ragged
from keras_mgpu_strategy.system.closing import close
from keras_mgpu_strategy.system.messages import calling_line
from keras_mgpu_strategy.types import NO_MARKS, InputBatch, Nest, Origin, RowMarks

Form: TypeAlias = Callable[[Any], Nest]
"""Returns the part of an element that the model is given."""
Companion: TypeAlias = Callable[[RowMarks, Any, int, int], RowMarks]
"""Adds to the marks of rows: of an element, its first row and number of rows."""


def inputs_of(element: Any) -> Nest:
    """Returns x of an element: itself, or the first of 1 to 3 in a tuple or list."""
    if not isinstance(element, tuple | list):
        return element
    if not 1 <= len(element) <= 3:
        raise ValueError(
            f"received a {type(element).__name__} of {len(element)} items, expected "
            "(x,), (x, y) or (x, y, sample_weight). Wrap several inputs as one: "
            "((a, b, ...),)."
        )
    return element[0]


class StreamSource:
    """A `Source` over an input that gives one element per batch, `steps` at most.

    Unless it `can_reopen`, rows handed out cannot be read again. `form` returns what
    the model is given of an element, in which `lists_are_rows` or else parts, as tuples
    are. If `spec` is unknown, the first one is read ahead. Each of the `companions`
    adds to the marks of rows what it keeps of the rest of their element.
    """

    num_rows = None

    def __init__(
        self,
        open_fn: Callable[[], Iterator[Any]],
        steps: int | None = None,
        input_spec: Nest = None,
        form: Form = inputs_of,
        *,
        spec: Nest = None,
        can_reopen: bool = True,
        lists_are_rows: bool = False,
    ) -> None:
        self.companions: list[Companion] = []
        self.beside = Beside()
        self._open_fn, self._steps = open_fn, steps
        self._input_spec, self._form = input_spec, form
        self._can_reopen, self._lists_are_rows = can_reopen, lists_are_rows
        self._on_short = warns_of_short(steps)
        self._spec = spec
        self._first: Leaves | None = None
        self._pass: RowBuffer | None = None

    @property
    def spec(self) -> Nest:
        """Nest of `tf.TensorSpec`; None for an input without a single element."""
        if self._spec is None:
            self._opened().fill()
            self._spec = self._first and self._first.spec
        return self._spec

    def origin(self) -> Origin:
        """What distinguishes the first row from others; it is read ahead."""
        first = self._opened().first()
        flat = [] if first is None else first.flat
        rows = [digest_of_array(as_array(leaf[:1])) for leaf in flat]
        return Origin({"first row": rows})

    def marks(self, start: int, stop: int) -> RowMarks:
        """What companions keep of rows that were read."""
        return self.beside.between(start, stop) if self.companions else NO_MARKS

    def batches(self, batch_size: int, start: int = 0) -> Iterator[InputBatch]:
        """Yields batches from row `start`; ValueError if handed out or missing."""
        if start < 0:
            raise ValueError(f"Received start={start}, expected 0 or more.")
        current = self._opened()
        if self._can_reopen:
            self._pass = None
        elif current.is_closed or current.position > start:
            raise ValueError(
                f"Received start={start}, but this input can be read only once and "
                f"rows up to {current.position} were read. Pass a fresh generator, or "
                "a tf.data.Dataset or keras.utils.PyDataset, which can be read again."
            )
        self.beside.drop_before(start)
        return self._read(current, batch_size, start)

    def _opened(self) -> RowBuffer:
        if self._pass is None:
            beside = self.beside if self.companions else None
            self._pass = RowBuffer(self._pieces(self._open_fn()), 0, beside)
        return self._pass

    def _read(
        self, buffer: RowBuffer, batch_size: int, start: int
    ) -> Iterator[InputBatch]:
        finished = False
        try:
            buffer.skip(start)
            if buffer.fill() and self._first is not None:
                yield from buffer.batches(batch_size, self._first.structure)
            finished = True
        finally:
            if not finished:
                buffer.close()

    def _pieces(self, elements: Iterator[Any]) -> Generator[Rows, None, None]:
        first_row = 0
        end = object()
        try:
            for step in (
                itertools.count() if self._steps is None else range(self._steps)
            ):
                element = next(elements, end)
                if element is end:
                    self._on_short(step)
                    return
                if self._lists_are_rows and isinstance(element, list):
                    element = (element,)
                try:
                    rows = self._rows(element, first_row)
                except (TypeError, ValueError) as error:
                    kind = TypeError if isinstance(error, TypeError) else ValueError
                    where = f"Batch {step} (first row {first_row})"
                    raise kind(f"{where}: {error}") from error
                first_row += rows.num_rows
                yield rows
        except BaseException:
            close(elements)
            raise

    def _rows(self, element: Any, first_row: int) -> Rows:
        with refusing_ragged(element, "the element"):
            found = as_leaves(self._form(element), self._input_spec)
        check_rows(found.flat, first_row)
        self._first = self._first or found
        _check_same(found.flat, self._first.flat)
        num_rows = found.flat[0].shape[0]
        flat, shared = [], []
        for leaf, first in zip(found.flat, self._first.flat, strict=True):
            fail = failing(leaf.path, first_row)
            fitted = dataclasses.replace(like(leaf, first, fail), cast=first.cast)
            rows, is_shared = fitted.view(0, num_rows, fail)
            flat.append(rows)
            # Tensors too: tf.numpy_function may return the function's own memory.
            shared.append(is_shared and leaf.memory is not Memory.NEW)
        marks = NO_MARKS
        for companion in self.companions:
            marks = companion(marks, element, first_row, num_rows)
        return Rows(flat, num_rows, tuple(shared), marks)


def _check_same(found: list[Leaf], first: list[Leaf]) -> None:
    if [_kind(leaf) for leaf in found] == [_kind(leaf) for leaf in first]:
        return
    received, expected = (", ".join(map(_kind, flat)) for flat in (found, first))
    raise ValueError(
        f"received {received}, expected {expected} as in batch 0. Yield the same "
        "inputs every time: an optional input in all batches or in none, and sparse or "
        "dense rows."
    )


def _kind(leaf: Leaf) -> str:
    is_ragged = isinstance(leaf, RaggedLeaf)
    return f"{leaf.path} of any length" if is_ragged else leaf.path


def warns_of_short(steps: int | None) -> Callable[[int], None]:
    """Returns what warns, in any thread, at this call's line of user code."""
    line = calling_line()

    def warn(num_batches: int) -> None:
        if steps is not None and num_batches < steps:
            line.warn(
                f"Your input ran out of data: steps={steps} batches were asked for, "
                f"but it has {num_batches}. Pass fewer steps, or use .repeat() on a "
                "tf.data.Dataset."
            )

    return warn


def sequence_source(
    x: Any,
    steps: int | None,
    input_spec: Nest,
    form: Form,
    *,
    lists_are_rows: bool = False,
) -> StreamSource:
    """Reads a PyDataset, or anything else with a length and batches by index."""
    count = x.num_batches if hasattr(x, "num_batches") else len(x)
    if count is None and steps is None:
        raise ValueError(
            f"Received a {type(x).__name__} with num_batches=None, which never ends, "
            "expected steps= with it: the number of batches to read."
        )

    def read() -> Iterator[Any]:
        return (x[i] for i in (itertools.count() if count is None else range(count)))

    return StreamSource(read, steps, input_spec, form, lists_are_rows=lists_are_rows)
