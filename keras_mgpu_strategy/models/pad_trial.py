"""Whether a model ignores padding, and which of its results vary with the length.

Layers that make masks are a sign that it does. Rows are also run alone and padded: a
convolution after a mask sees padding, and a mean over tokens counts it: only results
show that. Numbers are compared before the head of a method, which could hide what
differs; shapes are those of the results.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.models.libraries import (
    is_hub_class,
    is_library_class,
    layers_of,
    library_of,
)
from keras_mgpu_strategy.models.pad_runs import PadRuns, Ran, Results
from keras_mgpu_strategy.models.replicated import ReplicatedModel
from keras_mgpu_strategy.models.token_counts import PaddedOutputs, TokenCounts, counted
from keras_mgpu_strategy.types import Nest, has_free_length

_MEANT = (
    "Or pass pad=mgpu.Pad(..., unmasked=True) if the results may depend on padding, "
    "and so on the lengths in the report."
)
_NOT_MASKED = (
    "{names} does not ignore padding, although it has masks: {difference} if the row "
    "is padded. Some layers drop or ignore masks, such as convolutions, Flatten, and "
    f"pooling without a mask. Put them before the mask is made. {_MEANT}"
)
_LAST_AXIS = (
    "{method} works along the last axis of an output, which is the number of tokens in "
    "one of shape {shape}: its result would mix the tokens of a row, and its padding. "
    "Call predict, or let the model give an output of shape (rows, tokens, classes)."
)
_OTHER_AXES = (
    "A result has shape {}, where each None depends on the length of a row. Expected "
    "at most one, on axis 1. Leave this output out with outputs=, or, for several "
    'models, pass combine="mean".'
)
_NO_RULE = (
    "An output has {} tokens for rows of {}, and {} for rows of {}, with no rule that "
    "says how many belong to the row and how many to its padding. Leave this output "
    "out with outputs=, or pass rows of one length without pad."
)


def try_padded(
    replicated: ReplicatedModel,
    head: Results,
    spec: Nest,
    padded: Nest,
    lengths: Sequence[int],
    *,
    side: str,
    unmasked: bool,
) -> PaddedOutputs:
    """Runs rows alone and padded on one device; see `Backend.try_padded`."""
    if not unmasked:
        _check_masked(replicated, padded)
    runs = PadRuns(replicated, head, spec, padded, side)
    short = runs.other(lengths[0])
    if short is None:
        return PaddedOutputs(tuple(_declared(runs)), runs.is_static)
    if not unmasked and short.is_a_row and not runs.draws:
        difference = next(filter(None, _differences(runs, short, lengths)), None)
        # Ops that draw numbers may keep their own state.
        if difference and not runs.difference(runs.long, runs.again()):
            names = ", ".join(replicated.names)
            raise ValueError(_NOT_MASKED.format(names=names, difference=difference))
    _check_last_axis(head.along_last_axis, short, runs.long)
    return PaddedOutputs(tuple(_tokens(runs, short)), runs.is_static)


def padding_of(spec: Nest, padded: Nest, length: int, side: str) -> tuple[str, ...]:
    """What the first row, of a `length`, is padded with; nothing if it is not."""
    place = -1 if side == "right" else 0
    pairs = zip(tf.nest.flatten(spec), tf.nest.flatten(padded), strict=True)
    varying = [rows for leaf, rows in pairs if has_free_length(leaf.shape)]
    return tuple(repr(x[0, place]) for x in varying if x.shape[1] != length)


def _check_masked(replicated: ReplicatedModel, inputs: Nest) -> None:
    """Raises ValueError if nothing shows that padding in these inputs is ignored."""
    declared = [getattr(x, "name", "") for x in tf.nest.flatten(replicated.input_spec)]
    if any("mask" in str(name).lower() for name in (*declared, *_keys(inputs))):
        return
    unmasked = itertools.compress(replicated.names, map(_shows_none, replicated.each))
    for name in unmasked:
        raise ValueError(
            f"Model {name!r} shows no sign of ignoring padding: it has no Masking "
            "layer, no Embedding with mask_zero=True, no layer with a compute_mask of "
            "its own, and no input whose name contains 'mask'. So its results may "
            f"depend on the length that rows are padded to. Use one of these. {_MEANT}"
        )


def _shows_none(member: ReplicatedModel) -> bool:
    if member.folder is not None:  # a SavedModel has no layers to look at
        return True
    masking = library_of(member.model).layers.Masking
    return not any(_makes_masks(layer, masking) for layer in layers_of(member.model))


def _makes_masks(layer: Any, masking: type) -> bool:
    if getattr(layer, "mask_zero", False) or isinstance(layer, masking):
        return True
    # The method of Keras' other layers passes on or drops what another layer made.
    owner = next(cls for cls in type(layer).__mro__ if "compute_mask" in vars(cls))
    return not (is_library_class(owner) or is_hub_class(owner))


def _keys(nest: Nest) -> Iterator[Any]:
    if isinstance(nest, Mapping):
        yield from nest
        nest = list(nest.values())
    if isinstance(nest, list | tuple):
        for inner in nest:
            yield from _keys(inner)


def _declared(runs: PadRuns) -> Iterator[TokenCounts | None]:
    """Which results vary by their declared shapes alone, with a token for each."""
    long = runs.long
    for spec, shape in zip(runs.result_specs, long.shapes, strict=True):
        is_free = len(spec.shape) > 1 and spec.shape[1] is None
        yield TokenCounts() if is_free and shape[1] == long.length else None


def _differences(
    runs: PadRuns, short: Ran, lengths: Sequence[int]
) -> Iterator[str | None]:
    """How rows run alone, the first as `short`, differ from the same rows padded."""
    yield runs.difference(short, runs.long)
    if runs.is_static:
        return
    # Strides may fit one row and not the next.
    for row, length in enumerate(lengths[1 : runs.num_rows], 1):
        ran = runs.alone(row, length)
        if ran is not None and runs.is_alike(ran):
            yield runs.difference(ran, runs.long, row)


def _check_last_axis(method: str | None, short: Ran, long: Ran) -> None:
    for one, other in zip(short.outputs, long.outputs, strict=True):
        if method and one.shape[-1:] != other.shape[-1:]:
            shape = (None, *other.shape[1:-1], None)
            raise ValueError(_LAST_AXIS.format(method=method, shape=shape))


def _tokens(runs: PadRuns, short: Ran) -> Iterator[TokenCounts | None]:
    """The rule for each result that varies, None for the others."""
    long = runs.long
    for index, (one, other) in enumerate(zip(short.shapes, long.shapes, strict=True)):
        if one == other:
            yield None
            continue
        _check_axes(one, other)
        if (one[1], other[1]) == (short.length, long.length):
            yield TokenCounts()
            continue

        def count(length: int, index: int = index) -> int:
            ran = runs.zeros(length)
            return ran.shapes[index][1] if ran and runs.is_alike(ran) else 0

        rule = counted(count, long.length)
        if rule is None:
            known = (one[1], short.length, other[1], long.length)
            raise ValueError(_NO_RULE.format(*known))
        yield rule


def _check_axes(short: Sequence[int], long: Sequence[int]) -> None:
    pairs = itertools.zip_longest(short, long)
    axes = [axis for axis, (one, other) in enumerate(pairs) if one != other]
    if axes != [1]:
        shape = [None if axis in axes else size for axis, size in enumerate(long)]
        raise ValueError(_OTHER_AXES.format((None, *shape[1:])))
