"""Updates of losses and metrics on the host, from rows that come in any number.

They run in a thread of their own, outside of the scope of any strategy, many batches in
one compiled call, while the devices compute the next results.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.compute.signatures import SpecMemory, spec_key
from keras_mgpu_strategy.element_forms import as_given
from keras_mgpu_strategy.models import Criteria, make_judge
from keras_mgpu_strategy.system.messages import cause_of
from keras_mgpu_strategy.types import Nest, cut

_MOST_BATCHES = 64
_MOST_BYTES = 2**24


class OnHost:
    """Calls functions on the first CPU, one after the other, in a thread of its own."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "mgpu-judge")
        self._begun: Future[Any] | None = None

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Returns what a function returns."""
        self.begin(function, *args)
        return self.wait()

    def begin(self, function: Callable[..., Any], *args: Any) -> None:
        """Begins a call once the one before has ended; raises the error of that one."""
        self.wait()
        self._begun = self._pool.submit(_on_cpu, function, *args)

    def wait(self) -> Any:
        """Waits for the call that was begun last."""
        begun, self._begun = self._begun, None
        return None if begun is None else begun.result()

    def close(self) -> None:
        """Ends the thread, after the call that it is in."""
        self._pool.shutdown()


class BatchLoop:
    """Runs `step` on each batch of rows, as a graph unless `eagerly`.

    `step` takes a nest of tensors, whose batch axis is not known while it is traced, as
    in Keras, and updates variables. `trace` makes them and runs nothing.
    """

    def __init__(
        self, step: Callable[[Nest], Any], *, autograph: bool, eagerly: bool = False
    ) -> None:
        self._step = step
        self._autograph = autograph
        self._eagerly = eagerly
        self._graph: Any = None

    def trace(self, spec: Nest) -> None:
        """Traces the step for a nest of `tf.TensorSpec`."""
        if self._eagerly:
            return
        step = tf.function(self._step, autograph=self._autograph)
        step.get_concrete_function(spec)

        def loop(data: Nest, size: tf.Tensor) -> None:
            num_batches = tf.shape(tf.nest.flatten(data)[0])[0] // size

            def body(index: tf.Tensor) -> tf.Tensor:
                rows = slice(index * size, (index + 1) * size)
                step(tf.nest.map_structure(lambda leaf: leaf[rows], data))
                return index + 1

            tf.while_loop(
                lambda index: index < num_batches, body, [0], parallel_iterations=1
            )

        number = tf.TensorSpec([], tf.int32)
        graph = tf.function(loop, autograph=False)
        # Concrete: TensorFlow would take those of other runs for retraces, and warn.
        self._graph = graph.get_concrete_function(spec, number)

    def run(self, data: Nest, size: int) -> None:
        """Runs the step on whole batches of `size` rows."""
        data = tf.nest.map_structure(tf.convert_to_tensor, data)
        if self._eagerly:
            for first in range(0, len(tf.nest.flatten(data)[0]), size):
                self._step(cut(data, first, first + size))
            return
        self._graph(data, tf.constant(size))


class Judge:
    """The losses and metrics of a model, on the host; called outside of any scope."""

    def __init__(self, criteria: Criteria) -> None:
        self._compiled = criteria.compiled
        self._model = model = make_judge(criteria)
        is_legacy = criteria.compiled.library == "tf_keras"
        self._loop = BatchLoop(
            lambda data: model.test_step((data[0], *map(as_given, data[1:]))),
            autograph=is_legacy,
            eagerly=bool(model.run_eagerly),
        )
        self._specs = SpecMemory()
        self._traced: Any = None

    def is_for(self, criteria: Criteria) -> bool:
        """Whether these criteria differ at most in their penalties."""
        return self._compiled is criteria.compiled

    def begin(self, criteria: Criteria) -> None:
        """Forgets all rows."""
        self._model.begin(criteria.penalties)

    def prepare(self, outputs: Nest, targets: tuple[Nest, ...]) -> None:
        """Checks that outputs and targets, arrays or specs of them, fit each other."""
        self._trace((outputs, *targets))

    def add(self, outputs: Nest, targets: tuple[Nest, ...], size: int) -> None:
        """Adds rows of `(outputs, masks)`, the last batch of which may be shorter."""
        data = (outputs, *targets)
        self._trace(data)
        num_rows = len(tf.nest.flatten(data)[0])
        whole = num_rows - num_rows % size
        try:
            if whole:
                self._loop.run(cut(data, 0, whole), size)
            if whole < num_rows:
                self._loop.run(cut(data, whole), num_rows - whole)
        except tf.errors.UnimplementedError as error:  # such as a cast of strings
            raise _misfit(self._specs.cover(data), error) from error

    def logs(self) -> dict[str, Any]:
        """Loss and metrics so far, by Keras' names."""
        return _as_numbers(self._model.get_metrics_result())

    def in_order(self, logs: dict[str, Any]) -> Any:
        """A list in Keras' order, or the loss if it is alone."""
        if not hasattr(self._model, "_flatten_metrics_in_order"):
            # Of tf_keras, whose `metrics_names` is in order.
            names = [name for name in self._model.metrics_names if name in logs]
            values = [logs[name] for name in [*names, *sorted(logs.keys() - {*names})]]
            return values[0] if len(values) == 1 else values
        # Not public; it names what is within Keras' own metrics. Tried with Keras 3.5
        # and 3.15.
        return self._model._flatten_metrics_in_order(logs)

    def _trace(self, data: Nest) -> None:
        spec = self._specs.cover(data)
        key = spec_key(spec)
        if key == self._traced:
            return
        try:
            self._loop.trace(spec)
        # The user's losses and metrics run here and may raise anything.
        except Exception as error:
            raise _misfit(spec, error) from error
        self._traced = key


def batches_at_once(batch_bytes: int) -> int:
    """How many batches of outputs of so many bytes go into one call."""
    return max(min(_MOST_BATCHES, _MOST_BYTES // max(batch_bytes, 1)), 1)


def _misfit(spec: Nest, error: Exception) -> ValueError:
    return ValueError(
        "The model's losses and metrics cannot be computed from its outputs "
        f"({_shown(spec[0][0])}) and the labels ({_shown(spec[1:])}): "
        f"{cause_of(error)}"
    )


def _as_numbers(logs: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in sorted(logs.items()):
        if isinstance(value, dict):
            found |= _as_numbers(value)
            continue
        value = np.asarray(value)
        found[name] = float(value) if value.size == 1 else value
    return found


def _shown(spec: Nest) -> str:
    leaves = [leaf for leaf in tf.nest.flatten(spec)]
    shown = [f"{leaf.dtype.name} of shape {tuple(leaf.shape)}" for leaf in leaves]
    return ", ".join(shown) or "none"


def _on_cpu(function: Callable[..., Any], *args: Any) -> Any:
    with tf.device("CPU:0"):
        return function(*args)
