"""The metrics that a user asks for, checked at once, and made for the first results.

As in `compile`: names, objects and functions, for one output or by the name of each;
which kind "accuracy" is depends on the shapes.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.engines.interface import Backend
from keras_mgpu_strategy.metrics.kinds import Kind, kind_from, kind_of
from keras_mgpu_strategy.metrics.state import BuiltMetric, Row, on_host
from keras_mgpu_strategy.outputs.columns import columns_of
from keras_mgpu_strategy.types import Nest, Ragged

_ACCURACY = ("accuracy", "acc")
_OF_TOP_K = (*_ACCURACY, "top_k")
_LOW = ("float16", "bfloat16")
"""Floats that some metrics of Keras do not take."""
Pick = Callable[[Nest, Nest], list[tuple[Any, Any]]]
"""Labels and outputs of rows -> those of each output that has metrics."""


def asked_metrics(
    labels: Any, metrics: Any, method: str, backend: Backend
) -> "AskedMetrics | None":
    """What is asked for; labels alone ask for the accuracy."""
    if labels is None and metrics is None:
        return None
    if backend.options.combine == "vote" and method == "predict":
        method = "predict_classes"  # whose results are the same
    if backend.options.combine == "stack":
        raise ValueError(
            'Received labels or metrics with combine="stack", whose results have a row '
            'of each model for every label. Expected "mean", "gmean", "vote" or '
            '"mean_std" with them; or compute metrics of each model from the output.'
        )
    metrics = "accuracy" if metrics is None else metrics
    return AskedMetrics(metrics, method, backend.called)


class AskedMetrics:
    """What `metrics` asks for; `method` made the results of outputs `called` so."""

    def __init__(self, metrics: Any, method: str, called: Sequence[str] | None):
        self._method, self._called = method, called
        by_output = metrics if isinstance(metrics, Mapping) else {None: metrics}
        self._by_output = {
            output: on_host(lambda some=some: self._checked(some))
            for output, some in by_output.items()
        }
        if not any(self._by_output.values()):
            raise ValueError(
                f"Received metrics={metrics!r:.80}. Expected at least one metric."
            )

    @property
    def own(self) -> dict[str, Any]:
        """The user's classes and functions by name."""
        items = [item for some in self._by_output.values() for item in some]
        kinds = [item for item in items if isinstance(item, Kind) and item.is_own]
        return {kind.name.partition(".")[2]: kind.made_by for kind in kinds}

    def identity(self) -> list[Any]:
        """What distinguishes them from other metrics, as JSON."""
        return [
            [output, item if isinstance(item, str) else item.identity()]
            for output, some in self._by_output.items()
            for item in some
        ]

    def built(self, outputs: Nest, labels: Nest) -> tuple[Pick, list[BuiltMetric]]:
        """Makes the metrics; a `ValueError` if labels and outputs do not fit."""
        names = self._names(outputs)
        places = [names.index(output) for output in self._by_output]

        def pick(labels: Nest, outputs: Nest) -> list[tuple[Any, Any]]:
            leaves = tf.nest.flatten(outputs)  # "classes" before "scores"
            some = [_label_of(labels, names, place, len(places)) for place in places]
            return [*zip(some, (leaves[place] for place in places), strict=True)]

        built: list[BuiltMetric] = []
        for place, (label, row) in enumerate(pick(labels, outputs)):
            output, rows = names[places[place]], (_row(label), _row(row))
            prefix = f"{output}_" if len(names) > 1 else ""
            for item in self._by_output[output]:
                kind = self._kind(item, *(shape for _, shape in rows))
                name = _free(f"{prefix}{kind.config['name']}", [b.name for b in built])
                built.append(BuiltMetric(name, kind, rows, place))
        return pick, built

    def _checked(self, some: Any) -> list[str | Kind]:
        """Names that need shapes stay names."""
        items = list(some) if isinstance(some, list | tuple) else [some]
        known = _OF_TOP_K if self._method == "predict_top_k" else _ACCURACY
        kinds = [item if item in known else kind_of(item) for item in items]
        for kind in kinds:
            if isinstance(kind, Kind) and known is _OF_TOP_K:
                raise ValueError(
                    f"The metric {kind.config.get('name')!r} cannot be computed from "
                    'the results of predict_top_k. Expected "accuracy" (the best class '
                    'is the label) or "top_k" (the label is among the best classes).'
                )
            if isinstance(kind, Kind):
                kind.make()
        return kinds

    def _names(self, outputs: Nest) -> list[Any]:
        """The names of the outputs; [None] for one without a name."""
        if self._method == "predict_top_k":
            if len(tf.nest.flatten(outputs)) > 2 or [*self._by_output] != [None]:
                raise ValueError(
                    "Received metrics of several outputs, or by the names of outputs, "
                    "for the results of predict_top_k. Expected a list of metrics, and "
                    "outputs=NAME if the model has several."
                )
            return [None]
        names = [column.name for column in columns_of(outputs)]
        called = [*dict.fromkeys(self._called or ())]
        if isinstance(outputs, list | tuple) and len(called) == len(names):
            names = called
        if [*self._by_output] == [None] and len(names) == 1:
            return [None]
        unknown = [output for output in self._by_output if output not in names]
        if unknown:
            which = f"names {unknown}" if unknown != [None] else "names none of them"
            raise ValueError(
                f"The results have the outputs {names}, but metrics {which}. "
                "Expected a dict of metrics by output."
            )
        return names

    def _kind(
        self, item: str | Kind, labels: tuple[int, ...], row: tuple[int, ...]
    ) -> Kind:
        """The kind of an accuracy is chosen by shapes, as in Keras."""
        if isinstance(item, Kind):
            return item
        if self._method == "predict_top_k":
            item = "top_k" if item == "top_k" else "accuracy"
            return kind_from(f"top_k.{item}", {"name": item}, {})
        name = "SparseCategoricalAccuracy"
        if self._method == "predict_classes":  # which must equal the labels
            name = "Accuracy"
        elif not row or row[-1] == 1:
            name = "BinaryAccuracy"
        elif len(labels) >= len(row) and labels[-1] != 1:
            name = "CategoricalAccuracy"
        return kind_from(f"keras.{name}", {"name": item}, {})


def _row(leaf: np.ndarray | Ragged) -> Row:
    """The dtype and shape of a row."""
    if isinstance(leaf, Ragged):
        raise ValueError(
            "Metrics of results with a value for each token cannot be computed while "
            "they are written. Expected metrics of outputs with a value for each row: "
            "name them in a dict of metrics by output. Call evaluate(pad=...) for "
            "losses and metrics of tokens."
        )
    if leaf.dtype.kind in "SUOMm":
        raise ValueError(
            f"Metrics cannot be computed from labels or results of dtype {leaf.dtype}. "
            "Expected numbers, such as the index of each class."
        )
    dtype = leaf.dtype.name
    return "float32" if dtype in _LOW else dtype, leaf.shape[1:]


def _label_of(labels: Nest, names: list[Any], place: int, num_wanted: int) -> Any:
    """The labels of one output of several."""
    if isinstance(labels, Mapping) and names[place] in labels:
        return labels[names[place]]
    if isinstance(labels, list | tuple) and len(labels) == len(names) > 1:
        return labels[place]
    flat = tf.nest.flatten(labels)
    if len(flat) == 1 and num_wanted == 1:
        return flat[0]
    raise ValueError(
        f"The labels have {len(flat)} arrays, and metrics are for {num_wanted} of the "
        f"outputs {names}. Expected one array of labels, or a dict of them by output."
    )


def _free(name: str, taken: Collection[str]) -> str:
    """A name as Keras numbers equal ones."""
    names = [name, *(f"{name}_{number}" for number in range(1, len(taken) + 1))]
    return next(name for name in names if name not in taken)
