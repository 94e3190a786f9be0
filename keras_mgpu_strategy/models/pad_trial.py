"""A row tried alone and padded: what padding changes in the results of a model.

A convolution after a mask sees padding, and a mean over tokens counts it: only results
show that. Numbers are compared before the head of a method, which could hide what
differs; shapes are those of the results.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.models.describing import names_of
from keras_mgpu_strategy.models.pad_difference import difference_of
from keras_mgpu_strategy.models.padding import MEANT, check_masked
from keras_mgpu_strategy.models.replicated import ReplicatedModel
from keras_mgpu_strategy.models.stand_ins import Draws
from keras_mgpu_strategy.models.token_counts import PaddedOutputs, TokenCounts, counted
from keras_mgpu_strategy.types import Nest

_NUM_ROWS = 4

_NOT_MASKED = (
    "{names} does not ignore padding, although it has masks: {difference} if the row "
    "is padded. Some layers drop masks or do not look at them, such as convolutions, "
    f"Flatten and pooling without a mask. Put them before the mask is made. {MEANT}"
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

_Leaves: TypeAlias = Sequence[Any]


class Results(Protocol):
    """What a method makes of outputs, as `compute.heads.Head` does."""

    @property
    def plain(self) -> "Results":
        """What gives the outputs themselves; of several models along a new axis 1."""
        ...

    @property
    def along_last_axis(self) -> str | None:
        """The method, if it mixes the values along the last axis of an output."""
        ...

    def __call__(self, outputs: Nest) -> Nest:
        """The results."""
        ...


def try_padded(
    replicated: ReplicatedModel,
    head: Results,
    spec: Nest,
    alone: Nest,
    padded: Nest,
    *,
    side: str,
    unmasked: bool,
) -> PaddedOutputs:
    """Runs a row alone and padded on one device; see `Backend.try_padded`."""
    if not unmasked:
        check_masked(replicated, padded)
    trial = _Trial(replicated, head, spec)
    rows = tf.nest.flatten(padded)
    long = trial.run(rows)
    short = trial.run_shorter(tf.nest.flatten(alone), long)
    if short is None:
        return PaddedOutputs(tuple(trial.declared(long)))
    difference = None
    if not unmasked and short.is_a_row and not trial.draws:
        difference = _difference(replicated, short, long, side)
    # Ops that draw numbers may keep their own state.
    if difference and not _difference(replicated, long, trial.run(rows), side):
        names = ", ".join(names_of(replicated))
        raise ValueError(_NOT_MASKED.format(names=names, difference=difference))
    return PaddedOutputs(tuple(trial.tokens(short, long)))


@dataclasses.dataclass(frozen=True)
class _Ran:
    """Rows of one length; `is_a_row` unless they are zeros, tried for their shapes."""

    length: int
    outputs: list[np.ndarray]
    shapes: list[tuple[int, ...]]  # of results
    is_a_row: bool = True


class _Trial:
    def __init__(self, replicated: ReplicatedModel, head: Results, spec: Nest) -> None:
        leaves = tf.nest.flatten(spec)
        declared = filter(None, tf.nest.flatten(replicated.input_spec))
        fixed = [leaf.shape[0] for leaf in declared if leaf.shape.rank]
        self._num_rows = next(filter(None, fixed), _NUM_ROWS)
        self._specs = [
            tf.TensorSpec([self._num_rows, *x.shape[1:]], x.dtype) for x in leaves
        ]
        self._varying = [x.shape.rank > 1 and x.shape[1] is None for x in leaves]
        self._method = head.along_last_axis

        def forward(*flat: tf.Tensor) -> tuple[_Leaves, _Leaves]:
            outputs = replicated.call(replicated.in_form(spec, flat))
            results = head.plain(outputs), head(outputs)
            return tf.nest.flatten(results[0]), tf.nest.flatten(results[1])

        self.device = replicated.strategy.extended.worker_devices[0]
        function = tf.function(forward, autograph=replicated.autograph)
        with replicated.strategy.scope(), tf.device(self.device):
            self._step: Any = function.get_concrete_function(*self._specs)
        # Also leaves the model's own seeds as they are.
        self.draws = bool(Draws(self._step, replicated.all_variables(), {}))

    def run(self, rows: _Leaves, *, is_a_row: bool = True) -> _Ran:
        """Runs rows, repeated up to the batch that is tried."""
        each = np.arange(self._num_rows) % len(rows[0])
        with tf.device(self.device):
            outputs, results = self._step(*[tf.constant(leaf[each]) for leaf in rows])
        lengths = [x.shape[1] for x, v in zip(rows, self._varying, strict=True) if v]
        shapes = [tuple(leaf.shape) for leaf in results]
        arrays = [np.asarray(leaf) for leaf in outputs]
        return _Ran(next(iter(lengths), 0), arrays, shapes, is_a_row)

    def run_shorter(self, alone: _Leaves, long: _Ran) -> _Ran | None:
        """Runs the row alone, or rows of some other length; None if none can be."""
        if not any(self._varying):
            return None
        if alone[self._varying.index(True)].shape[1] != long.length:
            try:
                return self.run(alone)
            except tf.errors.OpError:  # too few tokens, for example for a kernel
                pass
        found = map(self._zeros, (long.length - 1, long.length + 1))
        return next(filter(None, found), None)

    def declared(self, long: _Ran) -> Iterator[TokenCounts | None]:
        """Which results vary by their declared shapes alone, one token for each."""
        for spec, shape in zip(
            self._step.structured_outputs[1], long.shapes, strict=True
        ):
            is_free = len(spec.shape) > 1 and spec.shape[1] is None
            yield TokenCounts() if is_free and shape[1] == long.length else None

    def tokens(self, short: _Ran, long: _Ran) -> Iterator[TokenCounts | None]:
        """The rule for each result that varies, None for the others."""
        for one, other in zip(short.outputs, long.outputs, strict=True):
            if self._method and one.shape[-1] != other.shape[-1]:
                shape = (None, *other.shape[1:-1], None)
                raise ValueError(_LAST_AXIS.format(method=self._method, shape=shape))
        pairs = zip(short.shapes, long.shapes, strict=True)
        for index, (one, other) in enumerate(pairs):
            if one == other:
                yield None
                continue
            self._check_axes(one, other)
            if (one[1], other[1]) == (short.length, long.length):
                yield TokenCounts()
                continue
            rule = counted(lambda n, index=index: self._count(n, index), long.length)
            if rule is None:
                raise ValueError(
                    _NO_RULE.format(one[1], short.length, other[1], long.length)
                )
            yield rule

    def _zeros(self, length: int) -> _Ran | None:
        """Runs zeros, for their shapes; None if there cannot be so few or many."""
        pairs = zip(self._specs, self._varying, strict=True)
        rows = [_zeros(spec, length if v else None) for spec, v in pairs]
        try:
            return self.run(rows, is_a_row=False) if length > 0 else None
        except tf.errors.OpError:
            return None

    def _count(self, length: int, index: int) -> int:
        ran = self._zeros(length)
        return 0 if ran is None else ran.shapes[index][1]

    def _check_axes(self, short: Sequence[int], long: Sequence[int]) -> None:
        pairs = itertools.zip_longest(short, long)
        axes = [axis for axis, (one, other) in enumerate(pairs) if one != other]
        if axes != [1]:
            shape = [None if axis in axes else size for axis, size in enumerate(long)]
            raise ValueError(_OTHER_AXES.format(tuple(shape)))


def _zeros(spec: tf.TensorSpec, length: int | None) -> np.ndarray:
    shape = [axis or 1 for axis in spec.shape]
    if length is not None:
        shape[1] = length
    return np.zeros(
        shape, "S1" if spec.dtype == tf.string else spec.dtype.as_numpy_dtype
    )


def _difference(
    replicated: ReplicatedModel, short: _Ran, long: _Ran, side: str
) -> str | None:
    """Says by how much the first row differs; None if only by rounding."""
    pairs = zip(short.outputs, long.outputs, strict=True)
    for index, (one, other) in enumerate(pairs):
        found = difference_of(replicated, one[0], other[0], side)
        if found is not None:
            name = f"output {index}" if len(short.outputs) > 1 else "its output"
            return f"{name} for a row of {short.length} tokens differs{found}"
    return None
