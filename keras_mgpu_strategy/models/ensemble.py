"""Several models on every replica that are given the same rows, as one.

They may differ in all but what they take and what they return. What is declared is
compared before anything runs, the rest when a step is traced. Each model is given every
view of the rows before the next one runs.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.models.digest import preprocessing_of
from keras_mgpu_strategy.models.libraries import symbols_of
from keras_mgpu_strategy.models.replicated import Models, ReplicatedModel
from keras_mgpu_strategy.models.turns import TURNS, check_turn
from keras_mgpu_strategy.models.views import View, through
from keras_mgpu_strategy.types import DeclaredInput, Feeding, Nest

_UNKNOWN = tf.resource


def ensemble(
    members: Sequence[ReplicatedModel],
    names: Sequence[str],
    views: Sequence[str | View],
) -> ReplicatedModel:
    """Returns the members as one model; ValueError, with `names`, where they differ."""
    first = members[0]
    runs = [*itertools.product(members, views)]
    run_names = [name for name in names for _ in views]
    for member, view in runs:
        if view in TURNS:
            check_turn(str(view), member)
    feeding = _feeding_of(members, names)
    input_spec = _agreed([x.input_spec for x in members], names, "takes")

    def call(inputs: Nest) -> list[Callable[[Sequence[tf.Tensor]], Nest]]:
        seen: list[Nest] = []

        def run(index: int, before: Sequence[tf.Tensor]) -> Nest:
            member, view = runs[index]
            given = _given(member, input_spec, inputs)
            with tf.control_dependencies(before):
                outputs = through(view, member)(given)
            _check_traced(seen, outputs, run_names)
            return outputs

        return [functools.partial(run, index) for index in range(len(runs))]

    models = Models(member.model for member in members)
    return ReplicatedModel(
        model=models if len(models) > 1 else first.model,
        strategy=first.strategy,
        call=call,
        input_spec=input_spec,
        output_shapes=_outputs_of(members, names),
        precision=first.precision,
        outputs=first.outputs,
        feeding=feeding,
        members=tuple(members),
    )


def _given(member: ReplicatedModel, input_spec: Nest, inputs: Nest) -> Nest:
    """The inputs in a member's form; it may give those of a list other names."""
    own: Any = member.input_spec
    is_listed = isinstance(own, list | tuple) and isinstance(input_spec, list | tuple)
    if is_listed and isinstance(inputs, dict):
        names = [leaf.name for leaf in input_spec]
        # The same names in another order mean what they name.
        if {*names} != {leaf.name for leaf in own}:
            inputs = [inputs[name] for name in names]
    return member.in_form(inputs, tf.nest.flatten(inputs))


def _feeding_of(members: Sequence[ReplicatedModel], names: Sequence[str]) -> Feeding:
    first = members[0]
    for member, name in zip(members, names, strict=True):
        if member.feeding.raw != first.feeding.raw or (
            preprocessing_of(member) != preprocessing_of(first)
        ):
            raise ValueError(
                f"The preprocessors of {names[0]} and {name} differ, but all models "
                "are given the same rows. Set `preprocessor = None` on each, and pass "
                "rows that are preprocessed already."
            )
        if member.feeding.whole != first.feeding.whole:
            raise ValueError(
                f"{names[0]} and {name} take rows in different forms. Expected a "
                "`predict_step` of the user's own, of the same Keras, in all of them "
                "or in none. Move what it does into `call`."
            )
    own_batches = any(member.feeding.own_batches for member in members)
    return dataclasses.replace(first.feeding, own_batches=own_batches)


def _outputs_of(
    members: Sequence[ReplicatedModel], names: Sequence[str]
) -> Nest | None:
    """The shapes of what all return; None if one does not declare it."""
    specs = [_declared_outputs(member) for member in members]
    merged = _agreed(specs, names, "returns")
    if any(spec is None for spec in specs):
        return None
    return tf.nest.map_structure(lambda spec: spec.shape, merged)


def _declared_outputs(member: ReplicatedModel) -> Nest | None:
    """The outputs that a member declares; of dtype resource if that is not known."""
    shapes = member.output_shapes
    if shapes is None:
        return None
    leaves = tf.nest.flatten(shapes)
    symbols = [] if member.precision else symbols_of(member.model, "outputs")
    dtypes = [tf.as_dtype(symbol.dtype) for symbol in symbols]
    if len(dtypes) != len(leaves):
        dtypes = [_UNKNOWN] * len(leaves)
    specs = list(map(tf.TensorSpec, leaves, dtypes))
    return tf.nest.pack_sequence_as(shapes, specs)


def _agreed(nests: Sequence[Nest], names: Sequence[str], does: str) -> Nest | None:
    """Merges what members declare; None if none declares it."""
    both = zip(nests, names, strict=True)
    declared = [(nest, name) for nest, name in both if nest is not None]
    if not declared:
        return None
    first, first_name = declared[0]
    leaves = tf.nest.flatten(first)
    for nest, name in declared[1:]:
        others = tf.nest.flatten(nest)
        # A single input is given with the container that each model wants.
        is_one = does == "takes" and len(leaves) == len(others) == 1
        try:
            if not is_one and _structure(nest) != _structure(first):
                raise ValueError("other structure")
            leaves = list(map(_merged, leaves, others))
        except ValueError:
            raise _differing(does, first_name, first, name, nest) from None
    return tf.nest.pack_sequence_as(first, leaves)


def _merged(one: Any, other: Any) -> DeclaredInput:
    known = {one.dtype, other.dtype} - {_UNKNOWN}
    if len(known) > 1:
        raise ValueError("other dtype")

    def both(flag: str) -> bool:
        return all(getattr(spec, flag, False) for spec in (one, other))

    return DeclaredInput(
        one.shape.merge_with(other.shape),
        next(iter(known), _UNKNOWN),
        one.name,
        optional=both("optional"),
        stays_sparse=both("stays_sparse"),
    )


def _differing(
    does: str, first_name: str, first: Nest, name: str, other: Nest
) -> ValueError:
    return ValueError(
        f"{name} {does} {_shown(other)}, but {first_name} {does} {_shown(first)}. "
        "Expected models with the same inputs and outputs. Pass `outputs=` to choose "
        "what is returned, or make a Predictor of each."
    )


def _check_traced(seen: list[Nest], outputs: Nest, names: Sequence[str]) -> None:
    """Compares what members returned; `seen` has those before, and gets this one."""
    seen.append(tf.nest.map_structure(_spec_of, outputs))
    first, last = seen[0], seen[-1]
    same = _structure(first) == _structure(last)
    if not same or tf.nest.flatten(first) != tf.nest.flatten(last):
        name = names[len(seen) - 1]
        raise _differing("returns", names[0], first, name, last)


def _spec_of(output: Any) -> Any:
    is_tensor = isinstance(output, tf.Tensor | tf.Variable)
    return tf.TensorSpec(output.shape, output.dtype) if is_tensor else type(output)


def _structure(nest: Nest) -> Any:
    """The containers of a nest, in which a list is as good as a tuple."""
    if isinstance(nest, dict):
        return {key: _structure(nest[key]) for key in nest}
    is_listed = isinstance(nest, list | tuple)
    return [_structure(inner) for inner in nest] if is_listed else None


def _shown(nest: Nest) -> str:
    if isinstance(nest, dict):
        return f"{{{', '.join(f'{k!r}: {_shown(v)}' for k, v in nest.items())}}}"
    if isinstance(nest, list | tuple):
        return f"[{', '.join(map(_shown, nest))}]"
    if isinstance(nest, type):
        return nest.__name__
    shape = getattr(nest, "shape", nest)
    is_known = getattr(nest, "dtype", _UNKNOWN) != _UNKNOWN
    dtype = f" {nest.dtype.name}" if is_known else ""
    return f"{tuple(shape) if shape.rank is not None else 'any shape'}{dtype}"
