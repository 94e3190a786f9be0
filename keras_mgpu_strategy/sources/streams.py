"""Inputs that come in their own batches: generators, PyDatasets, iterators.

Guarantees:

* The user's batches are read in order, in the thread that asks for rows; `workers`
  of a PyDataset are not used.
* A stream may reuse the memory of a batch as soon as it is asked for the next one.
* Reading ahead for `spec` loses nothing: the batch read is yielded first.
* An exception in the user's code propagates unchanged.
* When reading stops early, the user's generator is closed. After a normal end (also
  by `steps`) it is left open, so that the rest can be read later.
"""

import itertools
from collections.abc import Callable, Generator, Iterator
from typing import Any

from keras_mgpu_strategy.sources.checks import check_batch_size
from keras_mgpu_strategy.sources.elements import ElementReader, Form, inputs_of
from keras_mgpu_strategy.sources.nests import pack
from keras_mgpu_strategy.sources.origins import origin_of_stream
from keras_mgpu_strategy.sources.rebatch import RowBuffer, Rows
from keras_mgpu_strategy.system.caller import calling_line
from keras_mgpu_strategy.system.closing import close
from keras_mgpu_strategy.types import InputBatch, Nest, Origin

_END = object()


class _Pass:
    """One reading of the input, starting at its first batch."""

    def __init__(
        self,
        elements: Iterator[Any],
        steps: int | None,
        reader: ElementReader,
        on_short: Callable[[int], None],
    ) -> None:
        self._elements = elements
        self._steps = steps
        self._on_short = on_short
        self._reader = reader
        self.buffer = RowBuffer(self._rows())
        self.is_closed = False

    @property
    def spec(self) -> Nest:
        """The spec of the first batch; None if there is none."""
        if self._reader.spec is None:
            self.buffer.fill()
        return self._reader.spec

    def read(self, batch_size: int, start: int) -> Iterator[InputBatch]:
        """Yields the remaining rows, starting at row `start`."""
        finished = False
        try:
            self.buffer.skip(start)
            first = self.buffer.position
            while (rows := self.buffer.take(batch_size)) is not None:
                inputs = pack(self._reader.structure, rows.flat)
                yield InputBatch(first, rows.num_rows, inputs)
                first = self.buffer.position
            finished = True
        finally:
            if not finished:
                self.is_closed = True
                self.buffer.close()

    def _rows(self) -> Generator[Rows, None, None]:
        first_row = 0
        counter = itertools.count() if self._steps is None else range(self._steps)
        try:
            for step in counter:
                element = next(self._elements, _END)
                if element is _END:
                    self._on_short(step)
                    return
                rows = self._reader.read(element, first_row)
                first_row += rows.num_rows
                yield rows
        except BaseException:
            close(self._elements)
            raise


class StreamSource:
    """A `Source` over an input that gives one element per batch.

    Args:
        open_fn: Starts a reading and returns the iterator of elements.
        can_reopen: Whether `open_fn` can be called again for the same elements.
            Otherwise rows that were handed out cannot be read again.
        steps: Number of elements to read; None for all.
        input_spec: What the model declares; every element is checked against it.
        form: Returns the part of an element that the model is given.
        spec: Nest of `tf.TensorSpec`, if known without reading. Otherwise the
            first element is read ahead to know it; `spec` is None if there is none.
    """

    def __init__(
        self,
        open_fn: Callable[[], Iterator[Any]],
        *,
        can_reopen: bool,
        steps: int | None = None,
        input_spec: Nest = None,
        form: Form = inputs_of,
        spec: Nest = None,
    ) -> None:
        self._form = form
        self._open_fn = open_fn
        self._can_reopen = can_reopen
        self._steps = steps
        self._input_spec = input_spec
        self._on_short = warns_of_short(steps)
        self._spec = spec
        self._pass: _Pass | None = None

    @property
    def num_rows(self) -> None:
        """None: only known after reading to the end."""
        return None

    @property
    def spec(self) -> Nest:
        """Nest of `tf.TensorSpec`; None for an input without a single element."""
        if self._spec is None:
            self._pass = self._pass or self._open()
            self._spec = self._pass.spec
        return self._spec

    def origin(self) -> Origin:
        """What distinguishes the first row from others; it is read ahead."""
        self._pass = self._pass or self._open()
        return origin_of_stream(self._pass.buffer.first())

    def batches(self, batch_size: int, start: int = 0) -> Iterator[InputBatch]:
        """Yields batches of `batch_size` rows, see `types.Source`.

        Rows before `start` are read and dropped.

        Raises:
            ValueError: If row `start` or later ones were already handed out and the
                input can be read only once, or if it has fewer than `start` rows.
        """
        check_batch_size(batch_size, self)
        if start < 0:
            raise ValueError(f"Received start={start}, expected 0 or more.")
        return self._pass_from(start).read(batch_size, start)

    def _pass_from(self, start: int) -> _Pass:
        current, self._pass = self._pass or self._open(), None
        if self._can_reopen:
            return current
        self._pass = current
        if current.is_closed or current.buffer.position > start:
            raise ValueError(
                f"Received start={start}, but this input can be read only once and "
                f"rows up to {current.buffer.position} were read. Pass a fresh "
                "generator, or a tf.data.Dataset or keras.utils.PyDataset, which can "
                "be read again."
            )
        return current

    def _open(self) -> _Pass:
        reader = ElementReader(self._input_spec, self._form)
        return _Pass(self._open_fn(), self._steps, reader, self._on_short)


def warns_of_short(steps: int | None) -> Callable[[int], None]:
    """Returns what warns, as Keras does, if there are fewer batches than `steps`.

    Returns:
        A function of the number of batches, for any thread. It warns at the user's
        line that called the package when this function was called.
    """
    line = calling_line()

    def warn(num_batches: int) -> None:
        if steps is not None and num_batches < steps:
            line.warn(
                f"Your input ran out of data: steps={steps} batches were asked for, "
                f"but it has {num_batches}. Pass fewer steps, or use .repeat() on a "
                "tf.data.Dataset."
            )

    return warn


def iterator_source(
    x: Iterator[Any], steps: int | None, input_spec: Nest, form: Form = inputs_of
) -> StreamSource:
    """Reads a generator or another iterator, once."""
    return StreamSource(
        lambda: x, can_reopen=False, steps=steps, input_spec=input_spec, form=form
    )


def sequence_source(
    x: Any, steps: int | None, input_spec: Nest, form: Form = inputs_of
) -> StreamSource:
    """Reads a PyDataset, or anything else with a length and batches by index.

    Raises:
        ValueError: If it is infinite and `steps` is None.
    """
    count = x.num_batches if hasattr(x, "num_batches") else len(x)
    if count is None and steps is None:
        raise ValueError(
            f"Received a {type(x).__name__} with num_batches=None, which never ends, "
            "expected steps= with it: the number of batches to read."
        )

    def read() -> Iterator[Any]:
        for index in itertools.count() if count is None else range(count):
            yield x[index]

    return StreamSource(
        read, can_reopen=True, steps=steps, input_spec=input_spec, form=form
    )
