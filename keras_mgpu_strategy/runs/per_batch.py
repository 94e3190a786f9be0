"""One result for each batch of a list or generator, whatever their sizes.

Guarantee: batches are run as one stream of rows, cut into per-replica batches, so
that small, large and uneven ones cost the same per row; a result has the rows of
its batch, even if there are none.
"""

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.compute import gather, heads
from keras_mgpu_strategy.element_forms import OneBatch, x_of
from keras_mgpu_strategy.runs.preparing import Runner
from keras_mgpu_strategy.runs.run import Job
from keras_mgpu_strategy.types import Feeding, Nest

_END = object()


def per_batch(runner: Runner, batches: Iterable[Any]) -> Iterator[Nest]:
    """Runs batches and cuts the results to match the batches.

    Args:
        runner: Runs the rows.
        batches: Nests of arrays, or tuples with x first, as Keras takes them.

    Returns:
        Iterator over the outputs of each batch. The first batch is read at once.
    """
    stream = iter(batches)
    first = next(stream, _END)
    if first is _END:
        return iter(())
    sizes: deque[int] = deque()

    def recorded() -> Iterator[Any]:
        for batch in itertools.chain([first], stream):
            sizes.append(_num_rows(batch))
            yield batch

    def next_size() -> int | None:
        return sizes.popleft() if sizes else None

    job = runner.job(recorded(), None, None, heads.identity)
    return _cut_anew(job, next_size)


def as_batch(x: Nest, feeding: Feeding) -> Any:
    """Returns x as Keras' `predict_on_batch` passes it: always as `(x,)`.

    Raises:
        ValueError: The model has its own `predict_on_batch`.
    """
    if feeding.own_batches:
        raise ValueError(
            "The model's class has its own `predict_on_batch`, which would not run "
            "here. Call `predict`, or the model's own method."
        )
    return x if feeding.whole is None else iter([OneBatch((x,))])


def _cut_anew(job: Job, next_size: Callable[[], int | None]) -> Iterator[Nest]:
    with contextlib.closing(job.run()) as results:
        for part in gather.resplit(results, next_size):
            yield part.outputs


def _num_rows(batch: Any) -> int:
    """Rows of the first leaf; a leaf without rows is refused when the batch is read."""
    leaves = [leaf for leaf in tf.nest.flatten(x_of(batch)) if leaf is not None]
    shape: Any = tuple(getattr(leaves[0], "shape", ())) if leaves else ()
    return int(shape[0]) if shape else 0
