"""Metrics that are built for rows of some form, and their state as JSON.

They live on the host's CPU, outside of any strategy. Keras makes some of the variables
with the first rows, and checks shapes only then, so rows of zeros come first.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from keras_mgpu_strategy.metrics.kinds import Kind, kind_from
from keras_mgpu_strategy.outputs.metric_states import Record, array_of, stored

_T = TypeVar("_T")
Row = tuple[str, tuple[int, ...]]
"""The name of a dtype, and the shape of a row."""

_MOST_ZEROS = 2**28


class BuiltMetric:
    """A metric for `rows` of labels and outputs; `place` is that of its output."""

    def __init__(self, name: str, kind: Kind, rows: tuple[Row, Row], place: int = 0):
        self.name, self.kind, self.place = name, kind, place
        self._rows = rows
        self.metric: Any = on_host(self._build)

    def _build(self) -> Any:
        metric = self.kind.make()
        try:
            metric.update_state(*_zeros(self._rows))
            metric.reset_state()
        except Exception as error:  # raised by Keras, TensorFlow or the user's code
            (_, labels), (_, outputs) = self._rows
            raise ValueError(
                f"The metric {self.name!r:.80} cannot be computed "
                f"from labels of shape {('rows', *labels)} and results of shape "
                f"{('rows', *outputs)}: {type(error).__name__}: {error!s:.300}. "
                "Expected what it takes in Keras. Pass labels of another form, such as "
                "one-hot, or another metric."
            ) from error
        return metric

    def state(self) -> dict[str, Any]:
        """How it is made, and its variables."""
        return {
            "name": self.name,
            "kind": self.kind.name,
            "config": self.kind.config,
            "rows": [[dtype, list(shape)] for dtype, shape in self._rows],
            "arrays": [stored(np.asarray(v)) for v in self.metric.variables],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Sets its variables to those of a state that `state` returned."""
        arrays = [array_of(array) for array in state["arrays"]]
        variables = self.metric.variables
        before = [[a.dtype.name, list(a.shape)] for a in arrays]
        now = [[np.asarray(v).dtype.name, list(v.shape)] for v in variables]
        if before != now:
            raise ValueError(
                f"The metric {self.name!r:.80} has the variables "
                f"{now}, but {before} were stored. Use the version of Keras that the "
                "run began with."
            )
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)

    def values(self) -> dict[str, Any]:
        """Its results by name: numbers, or lists of them."""
        result = on_host(self.metric.result)
        found = result if isinstance(result, dict) else {self.name: result}
        return {key: np.asarray(value).tolist() for key, value in found.items()}

    def check_additive(self) -> None:
        """Refuses a metric of the user's own whose state is not a sum over rows."""
        rules = {_rule(v) for v in self.metric.variables if self.kind.is_own}
        if rules - {"SUM"}:
            raise ValueError(
                f"The metric {self.name!r} has variables that are "
                f"not sums over the rows (aggregation {', '.join(sorted(rules))}), so "
                "that shards cannot be put together. Run without shard=, or make the "
                'variables with aggregation="sum", if their values may be added.'
            )


def values_of(record: Record, own: Mapping[str, Any]) -> dict[str, Any]:
    """The results that a record stands for; `own` has the user's classes."""
    found: dict[str, Any] = {}
    for state in record["states"]:
        labels, outputs = ((dtype, tuple(shape)) for dtype, shape in state["rows"])
        kind = kind_from(state["kind"], state["config"], own)
        metric = BuiltMetric(state["name"], kind, (labels, outputs))
        metric.restore(state)
        found |= metric.values()
    return found


class OnHost:
    """Calls functions on the first CPU, one after the other, in a thread of its own.

    So they are outside of the caller's strategy, which each thread enters for itself.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "mgpu-host")
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


def on_host(make: Callable[[], _T]) -> _T:
    """Returns what is made on the CPU, outside of the caller's strategy if any."""
    with contextlib.closing(OnHost()) as host:
        return host.call(make)


def _on_cpu(function: Callable[..., Any], *args: Any) -> Any:
    import tensorflow as tf

    with tf.device("CPU:0"):
        return function(*args)


def _zeros(rows: tuple[Row, Row]) -> list[Any]:
    """Some rows of each: as many as no axis has, so that none is mistaken for them."""
    import tensorflow as tf

    sizes = {size for _, shape in rows for size in shape}
    count = next(count for count in itertools.count(2) if count not in sizes)
    if count * sum(math.prod(shape) for _, shape in rows) > _MOST_ZEROS:
        raise ValueError("the rows are too large")
    return [tf.zeros((count, *shape), tf.as_dtype(dtype)) for dtype, shape in rows]


def _rule(variable: Any) -> str:
    """How Keras puts together what replicas have of a variable; unknown before 3.7."""
    rule = getattr(variable, "aggregation", "sum")
    return str(getattr(rule, "name", rule)).upper()
