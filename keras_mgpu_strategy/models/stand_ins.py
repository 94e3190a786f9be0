"""What a step reads in place of a model's random seeds and of copies that differ.

Every call draws other numbers. Those of `keras.random` depend only on seed, run and
rows, whatever the replicas and engine. All replicas read the moving statistics that
saving would have stored when the run began. The model is not changed.
"""

import contextlib
import functools
import itertools
import secrets
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import tensorflow as tf

from keras_mgpu_strategy.models.variables import (
    SUM,
    aggregate,
    combined_by,
    copies_of,
    outside_scopes,
    value_of,
)

_Copies: TypeAlias = list[Any]
"""The copies of a variable, one for each replica."""

# Names that Keras (3.5 to 3.15) and `tf.random.Generator` give seed variables.
_OF_KERAS, _OF_GENERATORS = "seed_generator_state", "StateVar"
_LARGEST = 2**31 - 1
_MOST_BYTES = 2**24

_process = 0


def set_apart() -> None:
    """Makes this process draw different numbers from others with the same model."""
    global _process
    _process = secrets.randbelow(_LARGEST) + 1


def first_run() -> int:
    """The number of a Predictor's first run; it counts up from there."""
    return _process


def is_seed(variable: Any) -> bool:
    """Whether a variable is the state of a random generator."""
    return _OF_KERAS in variable.name or (
        _OF_GENERATORS in variable.name and variable.dtype == tf.int64
    )


def name_of_seed(name: str) -> str | None:
    """The part of a variable's name that makes it a seed; None if there is none."""
    return next((part for part in (_OF_KERAS, _OF_GENERATORS) if part in name), None)


@contextlib.contextmanager
def drawing(stream: int) -> Iterator[None]:
    """Traces a model so that it draws different numbers from its copies.

    TensorFlow numbers the random ops of a graph, so equal graphs would draw the same. A
    `stream` of 0 leaves them as they are, unless `set_apart` was called.
    """
    with tf.variable_creator_scope(_create_outside):
        if tf.executing_eagerly() or not (stream or _process):
            yield
            return
        before = tf.compat.v1.get_default_graph().seed
        # Without a seed nothing needs to be reproducible.
        seed = secrets.randbits(32) if before is None else before
        tf.random.set_seed(hash((seed, stream, _process)) % _LARGEST)
        try:
            yield
        finally:
            tf.compat.v1.get_default_graph().seed = before


def _create_outside(next_creator: Any, **settings: Any) -> Any:
    """Creates seeds outside the traced graph: a replica's own thread cannot."""
    name = str(settings.get("name"))
    if name_of_seed(name) is None:
        return next_creator(**settings)
    kept = {key: settings[key] for key in ("initial_value", "dtype", "trainable")}
    return outside_scopes(functools.partial(tf.Variable, **kept, name=name))


class Draws:
    """Stands in for the seeds that one compiled step of a replica draws from.

    Only one thread may run it. `variables` are all that it may read; `handles`: id of a
    captured one -> the one to read.
    """

    def __init__(self, step: Any, variables: Iterable[Any], handles: dict[int, Any]):
        captured = list(step.captured_inputs)
        ids = {id(tensor) for tensor in captured}
        copies = itertools.chain(*map(copies_of, variables))
        read = {id(copy.handle): copy for copy in copies if id(copy.handle) in ids}
        seeds = filter(is_seed, read.values())
        self._pairs = [(seed, stand_in_for(seed)) for seed in seeds]
        ours = {id(seed.handle): mine.handle for seed, mine in self._pairs}
        handles = {**handles, **ours}
        if handles.keys() & ids:
            step.set_external_captures([handles.get(id(t), t) for t in captured])

    def __bool__(self) -> bool:
        """Whether the step draws."""
        return bool(self._pairs)

    def begin(self, run: tf.Tensor, row: tf.Tensor) -> list[Any]:
        """Returns the ops to run before a call; `run` and `row` are int64 scalars."""
        return [
            mine.assign(_folded(seed.read_value(), run, row), read_value=False)
            for seed, mine in self._pairs
        ]


def _folded(state: tf.Tensor, run: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
    """The state of a seed for one call: two numbers, or three with a key."""
    seed = tf.cast(tf.stack([state[-1], state[0]]), tf.int64)
    random: Any = tf.random
    for number in (run, row):
        seed = random.experimental.stateless_fold_in(seed, number)
    return tf.concat([tf.cast(seed, state.dtype), state[2:]], 0)


class PinnedValues:
    """Stands in for variables of a model whose copies differ.

    `version` grows when steps must be traced again; `handles` is as in `Draws`.
    """

    def __init__(self, variables: Iterable[Any]):
        self.version = 0
        self.handles: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._pinned: list[tuple[Any, _Copies]] = []
        candidates = [v for v in map(value_of, variables) if _may_differ(v)]
        self._groups = _grouped([v for v in candidates if combined_by(v) != SUM])
        self._pin([v for v in candidates if combined_by(v) == SUM])

    def refresh(self) -> None:
        """Updates the stand-ins; call it when a run begins."""
        with self._lock:
            if self._groups:
                differing = itertools.compress(self._groups, self._look().numpy())
                self._look = self._compiled_look
                if found := list(itertools.chain(*differing)):
                    self._pin(found)
            if self._pinned:
                self._update()

    def _pin(self, variables: list[Any]) -> None:
        pinned = [(v, list(map(stand_in_for, copies_of(v)))) for v in variables]
        handles = {
            id(copy.handle): stand_in.handle
            for variable, stand_ins in pinned
            for copy, stand_in in zip(copies_of(variable), stand_ins, strict=True)
        }
        ids = set(map(id, variables))
        self._groups = [g for g in self._groups if not ids & set(map(id, g))]
        # The first run waits for everything to be compiled as it is.
        self._look = functools.partial(_differing, self._groups)
        self._compiled_look = _compiled(_differing, self._groups)
        self._pinned = [*self._pinned, *pinned]
        self._update = _compiled(_assign_aggregates, self._pinned)
        self.handles = {**self.handles, **handles}
        self.version += bool(variables)


def _compiled(function: Any, argument: Any) -> Any:
    return tf.function(functools.partial(function, argument), autograph=False)


def _may_differ(value: Any) -> bool:
    if len(copies_of(value)) == 1 or is_seed(value):
        return False
    # Optimizers change trainable variables on all replicas alike.
    alone = value.aggregation == tf.VariableAggregation.NONE and not value.trainable
    return alone or combined_by(value) is not None


def _grouped(variables: list[Any]) -> list[list[Any]]:
    """Groups by dtype: each is compared with a single copy between devices."""
    groups: list[list[Any]] = []
    room = 0
    for variable in sorted(variables, key=lambda v: v.dtype.name):
        size = variable.shape.num_elements() * variable.dtype.size
        if not groups or size > room or variable.dtype != groups[-1][0].dtype:
            groups.append([])
            room = _MOST_BYTES
        groups[-1].append(variable)
        room -= size
    return groups


def _differing(groups: list[list[Any]]) -> tf.Tensor:
    found = []
    for group in groups:
        of_replicas = list(zip(*map(copies_of, group), strict=True))
        first, *others = map(_flat, of_replicas)
        with tf.device(of_replicas[0][0].device):
            differ = [tf.reduce_any(first != other) for other in others]
            found.append(tf.reduce_any(differ))
    return tf.stack(found)


def _flat(copies: tuple[Any, ...]) -> tf.Tensor:
    with tf.device(copies[0].device):
        return tf.concat([tf.reshape(copy.read_value(), [-1]) for copy in copies], 0)


def _assign_aggregates(pinned: list[tuple[Any, _Copies]]) -> None:
    for variable, stand_ins in pinned:
        with tf.device(stand_ins[0].device):
            value = aggregate(variable)
        for stand_in in stand_ins:
            with tf.device(stand_in.device):
                stand_in.assign(value)


def stand_in_for(variable: Any) -> tf.Variable:
    """A variable like one, of zeros, where that one is."""

    def make() -> tf.Variable:
        with tf.device(variable.device):
            zeros = tf.zeros(variable.shape, variable.dtype)
            return tf.Variable(zeros, trainable=False)

    return outside_scopes(make)
