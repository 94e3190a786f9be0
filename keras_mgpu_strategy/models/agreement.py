"""Whether a rebuilt model computes what its original does, tried on two rows.

A difference is reported only between pure graphs (they write, draw and print nothing,
and call no Python), and only if each model agrees with itself. Attributes set while
tracing are restored.
"""

import collections
import contextlib
import itertools
import warnings
from collections.abc import Iterator
from typing import Any, NoReturn, TypeAlias

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.models.attributes import (
    held_by,
    is_part,
    own_attributes,
    reachable,
)
from keras_mgpu_strategy.models.effects import only_reads
from keras_mgpu_strategy.models.libraries import (
    declared,
    float_dtype_of,
    input_spec_of,
    is_hub_class,
    is_library_class,
    layers_of,
    library_of,
)
from keras_mgpu_strategy.models.variables import outside_scopes
from keras_mgpu_strategy.types import Nest

_Leaves: TypeAlias = list[tf.Tensor]

_NUM_ROWS, _UNKNOWN_LENGTH = 2, 32
_COARSE = ("float16", "bfloat16")
_NUM_REPEATS = 4  # code may make random choices while it is traced

_LOOPS = frozenset({"While", "StatelessWhile"})
# Kind of container -> what fills an empty one.
_MUTABLE: dict[type, Any] = {
    dict: dict.update,
    list: list.extend,
    set: set.update,
    collections.deque: collections.deque.extend,
}


def disagreement(source: Any, target: Any) -> str | None:
    """Says where a rebuilt model computes something else; None if it does not."""
    own = [
        layer
        for layer in layers_of(source)
        if not (is_library_class(type(layer)) or is_hub_class(type(layer)))
    ]
    if not own or not source.built:
        return None
    # The models may belong to different strategies.
    difference = outside_scopes(_difference, source, target)
    if difference is None:
        return None
    names = ", ".join(f"{layer.name!r} ({type(layer).__name__})" for layer in own[:5])
    return (
        f"its results differ {difference}, on rows generated to try it. Some state was "
        "not found, such as in slots or in a table by `id(self)`. Keep it in "
        f"attributes or variables of the layers that are not Keras' own: {names}"
    )


def _difference(source: Any, target: Any) -> str | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            comparison = _OutputComparison(source)
            found = comparison.difference(source, target)
            if found and all(map(comparison.is_constant, (source, target))):
                return found + comparison.place(target)
            return None
        # User code may raise anything; what fails here fails in a run, or does not
        # matter.
        except Exception:
            return None


class _OutputComparison:
    """Compares models on rows generated for one, which determines the tolerance."""

    def __init__(self, source: Any):
        self._source = source
        self._spec = input_spec_of(source)
        if self._spec is None:  # one float input of the shape it was built with
            shape = [None, *source.get_build_config()["input_shape"][1:]]
            self._spec = tf.TensorSpec(shape, float_dtype_of(source))
        random = np.random.default_rng(0)
        self._rows = tf.nest.map_structure(lambda s: _rows(s, random), self._spec)
        self._is_coarse = any(map(is_coarse, layers_of(source)))

    def difference(self, first: Any, second: Any) -> str | None:
        return self._between(self._results(first), self._results(second))

    def is_constant(self, model: Any) -> bool:
        first, *others = [self._results(model) for _ in range(_NUM_REPEATS)]
        return not any(self._between(first, other) for other in others)

    def place(self, target: Any) -> str:
        with contextlib.suppress(Exception):  # such as a layer that is used twice
            inner = [_up_to_each_layer(model) for model in (self._source, target)]
            for layer, first, second in zip(self._source.layers, *inner, strict=True):
                if self.difference(first, second):
                    return f", first in layer {layer.name!r} ({type(layer).__name__})"
        return ""

    def _results(self, model: Any) -> _Leaves:
        results = _pure_graph(model, self._spec)(self._rows)
        return tf.nest.flatten(results, expand_composites=True)

    def _between(self, first: _Leaves, second: _Leaves) -> str | None:
        if len(first) != len(second):
            return f"in number ({len(second)}, not {len(first)})"
        found = itertools.starmap(self._of_leaves, zip(first, second, strict=True))
        return next(filter(None, found), None)

    def _of_leaves(self, first: tf.Tensor, second: tf.Tensor) -> str | None:
        if first.shape != second.shape or first.dtype != second.dtype:
            return f"in shape or dtype ({second.shape}, not {first.shape})"
        if not (first.dtype.is_floating or first.dtype.is_complex):
            # Rounding can turn a float into another integer.
            is_same = self._is_coarse or np.array_equal(first, second)
            return None if is_same else f"in values of {first.dtype.name}"
        wide = tf.complex128 if first.dtype.is_complex else tf.float64
        one, other = (tf.cast(tensor, wide).numpy() for tensor in (first, second))
        finite = np.abs(one[np.isfinite(one)])
        # Lost state makes a larger difference than this, rounding a smaller one.
        relative = 0.1 if self._is_coarse else 1e-3
        absolute = relative * max(finite.max(initial=0.0), 1e-3)
        if np.allclose(one, other, relative, absolute, equal_nan=True):
            return None
        return f"by up to {np.nanmax(np.abs(one - other), initial=0.0):.3g}"


def _up_to_each_layer(model: Any) -> list[Any]:
    inputs, make = declared(model, "inputs"), library_of(model).Model
    return [make(inputs, layer.output) for layer in model.layers]


def is_coarse(layer: Any) -> bool:
    """Whether a layer is quantized or computes with half precision."""
    is_quantized = getattr(layer, "quantization_mode", None) is not None
    return is_quantized or getattr(layer, "compute_dtype", None) in _COARSE


def _rows(spec: tf.TensorSpec, random: np.random.Generator) -> tf.Tensor:
    """Rows that most models accept: floats in [0, 1), zeros and ones, letters."""
    batch, *row = spec.shape.as_list()
    shape = [batch or _NUM_ROWS, *(axis or _UNKNOWN_LENGTH for axis in row)]
    if spec.dtype == tf.string:
        return tf.fill(shape, "a")
    is_discrete = spec.dtype.is_integer or spec.dtype.is_bool
    values = random.integers(0, 2, shape) if is_discrete else random.random(shape)
    return tf.cast(values, spec.dtype)


def _pure_graph(model: Any, spec: Nest) -> Any:
    autograph = library_of(model).__name__ == "tf_keras"
    function = tf.function(lambda x: model.predict_step((x,)), autograph=autograph)
    with tf.variable_creator_scope(_refuse), _attributes_put_back(model):
        concrete = function.get_concrete_function(spec)
    if not _is_pure(concrete.graph):
        raise ValueError("the graph does more than compute its outputs")
    return concrete


def _refuse(*_: Any, **settings: Any) -> NoReturn:
    raise ValueError(f"variable {settings.get('name')!r} would be made")


def _is_pure(graph: Any) -> bool:
    definition = graph.as_graph_def()
    inner = {node.op for f in definition.library.function for node in f.node_def}
    # A loop without `maximum_iterations`, its second input, may not end.
    loops = [op for op in graph.get_operations() if op.type in _LOOPS]
    if inner & _LOOPS or any(tf.get_static_value(op.inputs[1]) == -1 for op in loops):
        return False
    return only_reads(definition)


@contextlib.contextmanager
def _attributes_put_back(model: Any) -> Iterator[None]:
    layers = [(layer, own_attributes(layer)) for layer in layers_of(model)]
    held = list(_mutable_in([value for _, own in layers for value in own.values()]))
    try:
        yield
    finally:
        for layer, before in layers:
            content = vars(layer)
            for name in own_attributes(layer).keys() - before.keys():
                del content[name]
            content |= {k: v for k, v in before.items() if content.get(k) is not v}
        for content, kind, before in held:
            if _ids(content) != _ids(before):
                kind.clear(content)
                _MUTABLE[kind](content, before)


def _mutable_in(values: list[Any]) -> Iterator[tuple[Any, Any, Any]]:
    for value in reachable(values):
        content = value
        if not isinstance(value, tuple(_MUTABLE)):
            inner = [] if is_part(value) else [held for _, held in held_by(value)]
            content = getattr(value, "__dict__", None)
            if not isinstance(content, dict) or _ids(content) != _ids(inner):
                continue  # not an object that holds just these values
        for kind in _MUTABLE:
            if issubclass(type(content), kind):  # not a proxy of one
                yield content, kind, kind(content)


def _ids(content: Any) -> list[int]:
    return list(map(id, content.values() if isinstance(content, dict) else content))
