"""How a metric is made: from a name, an object or a function, or from a journal.

A user's object is never changed: a fresh one is made from its configuration. What a
journal says makes only public metrics of Keras, and what the user hands over for it.
Keras is imported when a metric is made.
"""

import dataclasses
import importlib
import itertools
import json
import re
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from keras_mgpu_strategy.digests.code import digest_of_code

LIBRARIES = ("keras", "tf_keras")
_NOT_METRICS = ("get", "serialize", "deserialize")


@dataclasses.dataclass(frozen=True)
class Kind:
    """A class of metrics with its configuration, or a function whose mean is taken.

    Args:
        name: As in "keras.AUC", "tf_keras.AUC"; "own.NAME" for the user's,
            "top_k.NAME" for those of `predict_top_k`.
        config: Plain JSON, including the metric's name.
        made_by: The class or function.
    """

    name: str
    config: dict[str, Any]
    made_by: Any

    @property
    def is_own(self) -> bool:
        """Whether the class or function is the user's."""
        return self.name.startswith("own.")

    def identity(self) -> list[Any]:
        """What distinguishes it from other metrics, as JSON."""
        code = [digest_of_code(self.made_by)] if self.is_own else []
        return [self.name, self.config, *code]

    def make(self) -> Any:
        """A metric that has seen no row; a `ValueError` if it cannot be copied."""
        library = self.name.partition(".")[0]
        metrics = _metrics_of(library if library in LIBRARIES else "keras")
        try:
            if isinstance(self.made_by, type):
                return self.made_by.from_config(dict(self.config))  # type: ignore[attr-defined]
            return metrics.MeanMetricWrapper(self.made_by, **self.config)
        except Exception as error:  # raised by Keras or the user's code
            raise ValueError(
                f"The metric {self.config.get('name')!r:.80} cannot be made again from "
                f"its configuration: {type(error).__name__}: {error}. Return all "
                "arguments of its class from get_config."
            ) from error


def kind_of(given: Any) -> Kind:
    """The kind of what a user passes; a `ValueError` or `TypeError` if it is none."""
    if isinstance(given, str):
        return _kind_of_name(given)
    if isinstance(given, type):
        given = given()
    library = _library_of(given)
    if library is not None:
        return _kind_of_metric(given, library)
    if not callable(given):
        raise TypeError(
            f'metrics holds {given!r:.80}. Expected names such as "accuracy" and '
            '"auc", keras.metrics objects or functions of y_true and y_pred.'
        )
    name = getattr(given, "__name__", type(given).__name__)
    public = _public("keras", name) is given
    return Kind(f"{'keras' if public else 'own'}.{name}", {"name": name}, given)


def kind_from(name: str, config: dict[str, Any], own: Mapping[str, Any]) -> Kind:
    """The kind of a name, as in a journal; `own` has what is the user's by name."""
    library, _, inner = name.partition(".")
    known = {"own": own, "top_k": _OF_TOP_K}.get(library, {})
    found: Any = known.get(inner)
    if library in LIBRARIES and _is_plain(config):
        found = _public(library, inner)
    if not callable(found):
        raise ValueError(
            f"The metric {config.get('name', inner)!r:.80} is of the kind {name!r:.80},"
            " which is not known here. Pass its class or function: custom_objects="
            f"{{{inner!r:.80}: ...}}."
        )
    return Kind(name, config, found)


def _public(library: str, name: str) -> Any:
    """A public class of metrics, or function, of Keras; None if there is none."""
    found = getattr(_metrics_of(library), name, None)
    is_class = isinstance(found, type) and hasattr(found, "update_state")
    is_function = isinstance(found, types.FunctionType) and name not in _NOT_METRICS
    return found if is_class or is_function else None


def _kind_of_name(name: str) -> Kind:
    keras_metrics = _metrics_of("keras")
    try:
        found = keras_metrics.get(name)
    except TypeError as error:
        raise ValueError(
            f"The metric {name!r} needs arguments ({error}). Pass a keras.metrics "
            "object."
        ) from error
    except ValueError as error:
        raise ValueError(
            f"There is no metric {name!r}. Expected a name that Keras' compile takes, "
            'such as "accuracy", "auc" or "mean_squared_error".'
        ) from error
    kind = kind_of(found)
    return dataclasses.replace(kind, config={**kind.config, "name": name})


def _kind_of_metric(metric: Any, library: str) -> Kind:
    cls = type(metric)
    config = _plain(metric)
    if "fn" in config:
        raise ValueError(
            f"The metric {metric.name!r} wraps a function. Pass the function itself: "
            "its mean over the rows is taken."
        )
    if "name" in config:
        config["name"] = _without_number(metric.name, cls.__name__)
    public = _public(library, cls.__name__) is cls
    return Kind(f"{library if public else 'own'}.{cls.__name__}", config, cls)


def _plain(metric: Any) -> dict[str, Any]:
    try:
        text = json.dumps(metric.get_config(), default=_plain_value)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"The configuration of the metric {metric.name!r} cannot be stored "
            f"({error}). Expected get_config to return numbers, strings and lists."
        ) from error
    return json.loads(text)


def _plain_value(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"it holds {value!r:.60}")


def _is_plain(config: dict[str, Any]) -> bool:
    """Whether a configuration names neither classes nor functions to Keras."""
    lists = [value for value in config.values() if isinstance(value, list)]
    values = [*config.values(), *itertools.chain.from_iterable(lists)]
    is_nested = any(isinstance(value, dict) for value in values)
    return "fn" not in config and not is_nested


def _library_of(value: Any) -> str | None:
    """The Keras whose metric a value is."""
    for name in LIBRARIES:
        library = sys.modules.get(name)
        if library is not None and isinstance(value, library.metrics.Metric):
            return name
    return None


def _metrics_of(library: str) -> Any:
    return importlib.import_module(library).metrics


def _without_number(name: str, class_name: str) -> str:
    """A name without what Keras adds to it for each further metric of a process."""
    words = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", class_name)
    automatic = re.sub("([a-z])([A-Z])", r"\1_\2", words).lower()
    return automatic if re.fullmatch(rf"{automatic}_\d+", name) else name


def _first_is_right(y_true: Any, y_pred: Any) -> Any:
    """1 for each row whose best class is its label."""
    return _hits(y_true, y_pred)[..., 0]


def _any_is_right(y_true: Any, y_pred: Any) -> Any:
    """1 for each row whose label is among its best classes."""
    from keras import ops

    return ops.max(_hits(y_true, y_pred), axis=-1)


def _hits(y_true: Any, y_pred: Any) -> Any:
    from keras import ops

    if len(y_true.shape) < len(y_pred.shape):
        y_true = ops.expand_dims(y_true, -1)
    if y_true.shape[-1] != 1:  # it might still be compared with k classes
        raise ValueError(
            f"The labels have {y_true.shape[-1]} values a row, expected the index of "
            "the class. Pass labels.argmax(-1) of one-hot labels."
        )
    hits = ops.equal(ops.cast(y_true, "int64"), ops.cast(y_pred, "int64"))
    return ops.cast(hits, "float32")


_OF_TOP_K: dict[str, Callable[[Any, Any], Any]] = {
    "accuracy": _first_is_right,
    "top_k": _any_is_right,
}
