"""What runs of a model have shown about rows of one signature, for later runs."""

import dataclasses
import math
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.compute.heads import Head
from keras_mgpu_strategy.compute.signatures import StepKind, row_bytes
from keras_mgpu_strategy.compute.sizes import first_guess, most_batch_rows, per_replica
from keras_mgpu_strategy.compute.transfers import has_own_memory
from keras_mgpu_strategy.engines.adaptive_batch import Limits
from keras_mgpu_strategy.engines.context import ChunkSizes
from keras_mgpu_strategy.engines.interface import Backend
from keras_mgpu_strategy.report import Report
from keras_mgpu_strategy.runs.model_rows import ModelRows
from keras_mgpu_strategy.runs.tuning import Found
from keras_mgpu_strategy.sources.token_batches import TokenBatches
from keras_mgpu_strategy.system.environment import uses_onednn
from keras_mgpu_strategy.system.integers import ceil_div, next_power_of_two
from keras_mgpu_strategy.types import Nest

_SECONDS_WORTH_MAKING = 3.0
_SECONDS_WORTH_COMPARING = 0.2


@dataclasses.dataclass
class Learned:
    """A tuned batch size, the fastest step by batch size, and more."""

    chunk_sizes: ChunkSizes
    limits: Limits = dataclasses.field(default_factory=Limits)
    batch_size: int | None = None
    steps: dict[int, StepKind] = dataclasses.field(default_factory=dict)
    # What a tuning file was asked for, by the batch that was given.
    asked: dict[int | None, dict[str, Any]] = dataclasses.field(default_factory=dict)
    _made: set[Any] = dataclasses.field(default_factory=set)

    def learn(self, report: Report, best_step: Any) -> Found | None:
        """Learns from a run that has ended; returns what it has looked for, if it has.

        `best_step` is what it has found, for later runs too.
        """
        tuned = len(report.tried_batches) > 1
        if tuned:
            self.batch_size = report.batch_size
        if best_step is not None:
            self.steps[report.batch_size] = best_step
        self._made.add((report.batch_size, report.step))
        seconds = self.chunk_sizes.seconds(1)
        found = Found(best_step, report.batch_size if tuned else None, seconds)
        return found if (tuned or best_step) and found.is_possible() else None

    def recall(self, found: Found, size: int | None) -> None:
        """Learns what an earlier process has found, for a batch `size` if given."""
        self.batch_size = self.batch_size or found.batch_size
        size = size or found.batch_size
        if found.step is not None and size is not None:
            step: Any = found.step
            self.steps.setdefault(size, step)
        if math.isinf(self.chunk_sizes.seconds(1)):
            self.chunk_sizes.restart(found.seconds_per_row)

    def best_step(self, size: int) -> StepKind | None:
        """The fastest step for a batch, or for the tuned one; None if not known."""
        return self.steps.get(size) or self.steps.get(self.batch_size or size)

    def step(
        self, size: int, num_rows: int | None, num_replicas: int
    ) -> StepKind | None:
        """The fastest step for a batch, if it is known and worth it for so few rows."""
        step = self.best_step(size)
        if step is None or num_rows is None:
            return step
        least = _SECONDS_WORTH_MAKING
        if (size, step) in self._made:
            # Whether weights have changed is asked before each run of a frozen step.
            least = _SECONDS_WORTH_COMPARING if step == "frozen" else 0.0
        is_worth_it = self.chunk_sizes.seconds(num_rows) / num_replicas >= least
        return step if is_worth_it else None


def described(
    backend: Backend, spec: Nest, head: Head, size: int | None
) -> dict[str, Any]:
    """What the best step and batch depend on; `size` is the batch that is given."""
    leaves, names = tf.nest.flatten(spec), backend.options.output_names
    return {
        "model": backend.digest(),
        "inputs": [f"{leaf.dtype.name} {leaf.shape.as_list()}" for leaf in leaves],
        "head": repr(head),
        "outputs": names and [*names],
        "views": backend.options.described_views,
        "per-replica batch": size,
        "devices": backend.hardware,
        "tensorflow": tf.__version__,
        "oneDNN": uses_onednn(),
    }


def first_batch(
    wanted: int | None,
    learned: Learned,
    rows: ModelRows,
    fixed: int | None,
    backend: Backend,
    tokens: TokenBatches | None,
) -> int:
    """The initial per-replica batch, for a global one or None."""
    num_rows, num = rows.source.num_rows, len(backend.devices)
    if wanted is not None:
        size = per_replica(wanted, num)
        if fixed not in (None, size):
            raise ValueError(
                f"batch_size={wanted} gives {size} rows to each of {num} replicas, but "
                f"the model was built for batches of exactly {fixed}. Pass "
                f"batch_size={fixed * num} or None."
            )
    elif tokens is not None:
        size = tokens.size
    elif fixed or learned.batch_size is None:
        guess = first_guess(row_bytes(rows.spec), num_rows, num)
        size = fixed or min(guess, most_batch(backend) or guess)
    else:  # no more than the rows need
        size = learned.batch_size
        if num_rows is not None:
            size = min(size, next_power_of_two(ceil_div(num_rows, num)))
    return learned.limits.at_most(size)


def most_batch(backend: Backend, longest: int = 1) -> int | None:
    """The largest batch to choose where the host holds what a model computes."""
    shapes = backend.output_shapes
    if shapes is None or any(map(has_own_memory, backend.devices)):
        return None
    ranked = [shape for shape in tf.nest.flatten(shapes) if shape.rank]
    return most_batch_rows(row_bytes(list(map(tf.TensorSpec, ranked)), longest))


def fixed_batch(input_spec: Nest) -> int | None:
    """The batch axis that a model was built with, if not None."""
    if input_spec is None:
        return None
    sizes = [leaf.shape[0] for leaf in tf.nest.flatten(input_spec) if leaf.shape.rank]
    return next((size for size in sizes if size is not None), None)
