"""Updates of losses and metrics on the host, from rows that come in any number.

They run in a thread of their own, outside of the scope of any strategy, many batches in
one compiled call, while the devices compute the next results.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.compute.signatures import SpecMemory, spec_key
from keras_mgpu_strategy.element_forms import as_given
from keras_mgpu_strategy.metrics.state import OnHost, on_host
from keras_mgpu_strategy.models import Criteria, make_judge
from keras_mgpu_strategy.system.messages import cause_of
from keras_mgpu_strategy.types import Nest, cut


class BatchLoop:
    """Runs `step` on each batch of rows, as a graph unless `eagerly`.

    `step` takes a nest of tensors, whose batch axis is not known while it is traced, as
    in Keras, and updates variables. `trace` makes them and runs nothing.
    """

    def __init__(
        self, step: Callable[[Nest], Any], *, autograph: bool, eagerly: bool = False
    ) -> None:
        self._step, self._autograph, self._eagerly = step, autograph, eagerly
        self._graph: Any = None

    def trace(self, spec: Nest) -> None:
        """Traces the step for a nest of `tf.TensorSpec`."""
        if self._eagerly:
            return
        step = tf.function(self._step, autograph=self._autograph)
        step.get_concrete_function(spec)

        def loop(data: Nest, size: tf.Tensor) -> None:
            num_rows = tf.shape(tf.nest.flatten(data)[0])[0]

            def body(first: tf.Tensor) -> tf.Tensor:
                rows = slice(first, first + size)
                step(tf.nest.map_structure(lambda leaf: leaf[rows], data))
                return first + size

            tf.while_loop(
                lambda first: first < num_rows, body, [0], parallel_iterations=1
            )

        number = tf.TensorSpec([], tf.int32)
        graph = tf.function(loop, autograph=False)
        # Concrete: TensorFlow would take those of other runs for retraces, and warn.
        self._graph = graph.get_concrete_function(spec, number)

    def run(self, data: Nest, size: int) -> None:
        """Runs the step on batches of `size` rows, the last one with the rest."""
        data = tf.nest.map_structure(tf.convert_to_tensor, data)
        if self._eagerly:
            for first in range(0, len(tf.nest.flatten(data)[0]), size):
                self._step(cut(data, first, first + size))
            return
        self._graph(data, tf.constant(size))


class Judge:
    """The losses and metrics of a model; a thread of the host computes them."""

    def __init__(self, criteria: Criteria) -> None:
        self._criteria = criteria
        self._model = model = on_host(lambda: make_judge(criteria))
        self._loop = BatchLoop(
            lambda data: model.test_step((data[0], *map(as_given, data[1:]))),
            autograph=criteria.compiled.library == "tf_keras",
            eagerly=bool(model.run_eagerly),
        )
        self._specs = SpecMemory()
        self._traced: Any = None

    def is_for(self, criteria: Criteria) -> bool:
        """Whether these criteria differ at most in their penalties."""
        return self._criteria.compiled is criteria.compiled

    @contextlib.contextmanager
    def begun(self, criteria: Criteria) -> Iterator[None]:
        """Gives it its thread, and lets it forget all rows."""
        self._criteria = criteria
        with contextlib.closing(OnHost()) as self._host:
            self._forget()
            yield

    def prepare(self, outputs: Nest, targets: tuple[Nest, ...]) -> None:
        """Checks that outputs and targets, arrays or specs of them, fit each other."""
        self._host.call(self._trace, (outputs, *targets))

    def begin_adding(self, data: tuple[Nest, ...], size: int) -> None:
        """Begins to add `((outputs, masks), targets)`, in batches of up to `size`."""
        outputs, targets = data
        self._host.begin(self._add, (outputs, *targets), size)

    def logs(self) -> dict[str, Any]:
        """Loss and metrics so far, by Keras' names."""
        return _as_numbers(self._host.call(self._model.get_metrics_result))

    def logs_of(self, data: tuple[Nest, ...], size: int) -> dict[str, Any]:
        """Loss and metrics of one batch, which is then forgotten."""
        self.begin_adding(data, size)
        logs = self.logs()
        self._forget()
        return logs

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

    def _forget(self) -> None:
        self._host.call(self._model.begin, self._criteria.penalties)

    def _add(self, data: tuple[Nest, ...], size: int) -> None:
        self._trace(data)
        try:
            self._loop.run(data, size)
        except tf.errors.UnimplementedError as error:  # such as a cast of strings
            raise _misfit(self._specs.cover(data), error) from error

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
    leaves = tf.nest.flatten(spec)
    shown = [f"{leaf.dtype.name} of shape {tuple(leaf.shape)}" for leaf in leaves]
    return ", ".join(shown) or "none"
