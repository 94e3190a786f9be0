"""State that layers hold outside of configurations and of Keras' own variables.

Guarantees:

* An attribute that holds no layers and no variables is the original's own object:
  numbers, arrays, statistics of a custom `adapt`, lookup tables, objects of any class.
* Variables within attributes have the original's values, and are made if they are
  missing. Layers within attributes are the rebuilt ones.
* Functions that refer to layers are those that the constructors made, and must do so in
  the same way. What cannot be carried over is an error that names the attribute.
"""

import types
from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.models.attributes import (
    held_by,
    holds_parts,
    is_layer,
    is_variable,
    own_attributes,
    reads,
)
from keras_mgpu_strategy.models.containers import (
    CannotHold,
    Put,
    are_alike,
    are_same,
    emptied,
    filled,
    setter,
)
from keras_mgpu_strategy.models.libraries import is_library_class, layers_of
from keras_mgpu_strategy.models.precision import is_float_policy
from keras_mgpu_strategy.models.values import assign, host_value
from keras_mgpu_strategy.models.variables import value_of, variables_of

_MISSING = object()


def carry_early(
    source: Any,
    target: Any,
    strategy: tf.distribute.Strategy,
    precision: str | None = None,
) -> None:
    """Carries over what it can before a copy is built, as its `call` may need it.

    Args:
        source, target, strategy, precision: As in `carry_attributes`; the copy may lack
            layers and variables.
    """
    pairs = list(zip(layers_of(source), layers_of(target), strict=False))
    carrier = _Carrier(pairs, strategy, precision, left=variables_of(source))
    for before, after in pairs:
        if type(before) is type(after) and not is_library_class(type(before)):
            for name, value in own_attributes(before).items():
                if not holds_parts(value) or vars(after).get(name) is None:
                    carrier.carry_attribute(before, after, name, value, strict=False)


def carry_attributes(
    source: Any,
    target: Any,
    strategy: tf.distribute.Strategy,
    precision: str | None = None,
) -> None:
    """Gives the layers of a copy what the user's code has set on the original's.

    Args:
        source: Model.
        target: Model of the same architecture.
        strategy: Mirrors `target`.
        precision: If set, what looks like a dtype is left alone, as it may differ.

    Raises:
        ValueError: If an attribute that the layer's code reads cannot be carried over.
    """
    pairs = list(zip(layers_of(source), layers_of(target), strict=True))
    known = list(zip(variables_of(source), variables_of(target), strict=True))
    carrier = _Carrier([*pairs, *known], strategy, precision)
    for before, after in pairs:
        if not is_library_class(type(before)):
            for name, value in own_attributes(before).items():
                carrier.carry_attribute(before, after, name, value)


class _Carrier:
    """Walks an attribute of the original and of its copy, side by side.

    Args:
        pairs: Layers and variables of the original, and their counterparts.
        strategy: Mirrors the copy.
        precision: As in `carry_attributes`.
        left: Variables that will be made when the copy is built.
    """

    def __init__(
        self,
        pairs: list[tuple[Any, Any]],
        strategy: tf.distribute.Strategy,
        precision: str | None,
        left: Iterable[Any] = (),
    ):
        self._left = set(map(id, left))
        self._counterparts = {id(before): after for before, after in pairs}
        self._strategy = strategy
        self._precision = precision
        self._seen: set[int] = set()

    def carry_attribute(
        self, before: Any, after: Any, name: str, value: Any, *, strict: bool = True
    ) -> None:
        """Carries one attribute of a layer to the layer's counterpart."""

        def put(new: Any) -> None:
            vars(after)[name] = new  # a built layer refuses lists by `setattr`

        try:
            self._carry(value, vars(after).get(name, _MISSING), put)
        except CannotHold as error:
            if strict and reads(type(before), name):
                raise ValueError(
                    f"attribute {name!r} of layer {before.name!r} "
                    f"({type(before).__name__}) holds {error}, which the rebuilt layer "
                    "lacks. Make it in `__init__` or `build`, from arguments that "
                    "`get_config` returns"
                ) from None

    def _carry(self, before: Any, after: Any, put: Put) -> None:
        if not holds_parts(before):
            is_dtype = self._precision and is_float_policy(before)
            if not (is_dtype or are_same(before, after)):
                put(before)
            return
        for applies, carry in self._rules():
            if applies(before):
                carry(before, after, put)
                return

    def _rules(self) -> tuple[tuple[Callable[[Any], bool], Callable], ...]:
        return (
            (lambda x: id(x) in self._counterparts, self._counterpart),
            (is_variable, self._variable),
            (is_layer, self._loose_layer),
            (self._is_bound, self._method),
            (_is_of_keras, self._of_keras),
            (lambda x: True, self._container),
        )

    def _counterpart(self, before: Any, after: Any, put: Put) -> None:
        expected = self._counterparts[id(before)]
        if after is not expected:
            put(expected)

    def _variable(self, before: Any, after: Any, put: Put) -> None:
        if id(before) in self._left:
            raise CannotHold("a weight that is made later")
        value = host_value(before)
        if not is_variable(after):
            put(self._made_like(before, value))
        elif after.shape == before.shape and after.dtype == before.dtype:
            assign(after, value)
        else:
            raise CannotHold(
                f"a variable of shape {tuple(before.shape)} and dtype {before.dtype}"
            )

    def _made_like(self, variable: Any, value: Any) -> Any:
        plain = value_of(variable)
        settings = {
            "trainable": plain.trainable,
            "dtype": plain.dtype,
            "aggregation": plain.aggregation,
            "synchronization": plain.synchronization,
        }
        with self._strategy.scope():
            made = tf.Variable(value, **settings)
            return made if plain is variable else type(variable)(made)

    def _loose_layer(self, before: Any, after: Any, put: Put) -> None:
        """Carries a layer that Keras does not track, as it is hidden in an object."""
        if variables_of(before):
            raise CannotHold(f"the layer {before.name!r}, which Keras does not track")
        put(before)

    def _is_bound(self, value: Any) -> bool:
        is_method = isinstance(value, types.MethodType)
        return is_method and id(value.__self__) in self._counterparts

    def _method(self, before: Any, after: Any, put: Put) -> None:
        owner = self._counterparts[id(before.__self__)]
        put(types.MethodType(before.__func__, owner))

    def _of_keras(self, before: Any, after: Any, put: Put) -> None:
        """Keeps a metric, initializer or the like if the constructor made one."""
        if after is None or after is _MISSING:
            put(before)

    def _container(self, before: Any, after: Any, put: Put) -> None:
        if before is after or id(before) in self._seen:
            return
        self._seen.add(id(before))
        is_there = are_alike(before, after)
        held = dict(held_by(after)) if is_there else {}
        copied = after if is_there else emptied(before)
        for key, value in held_by(before):
            self._carry(value, held.get(key, _MISSING), setter(copied, key, value))
        if not is_there:
            put(filled(before, copied))


def _is_of_keras(value: Any) -> bool:
    # Keras wraps lists and dicts that are set on layers.
    return is_library_class(type(value)) and not isinstance(value, dict | list)
