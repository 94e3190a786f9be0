"""Random numbers of layers that draw in prediction.

Every call of a model draws different numbers, on any replica and in any process. What
is drawn through `keras.random` depends only on the seed, the run and the rows of the
call: it is bit-identical on any number of replicas, under any engine, and in a resumed
run. The state of the model's seeds is read, never changed.
"""

import contextlib
import functools
import secrets
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.models.variables import copies_of, outside_scopes, stand_in_for

# Names that Keras (3.5 to 3.15) and `tf.random.Generator` give seed variables.
_OF_KERAS, _OF_GENERATORS = "seed_generator_state", "StateVar"
_LARGEST = 2**31 - 1

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


@contextlib.contextmanager
def drawing(stream: int) -> Iterator[None]:
    """Traces a model so that it draws different numbers from its copies.

    TensorFlow numbers the random ops of a graph, so equal graphs would draw the same
    numbers. `stream` differs between copies; 0 leaves the ops as they are, unless
    `set_apart` was called in this process.
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
    """Creates seeds outside the graph that is being traced.

    Keras has one per thread, and each replica is traced in its own thread, where a
    variable cannot be made for one replica alone.
    """
    name = str(settings.get("name"))
    if not (_OF_KERAS in name or _OF_GENERATORS in name):
        return next_creator(**settings)
    kept = {key: settings[key] for key in ("initial_value", "dtype", "trainable")}
    return outside_scopes(functools.partial(tf.Variable, **kept, name=name))


class Draws:
    """Stands in for the seeds that one compiled step of a replica draws from.

    A step sets the stand-ins before each call of the model, so only one thread may run
    it at a time. `handles` are ids of captured handles -> the handles to read instead.
    """

    def __init__(self, step: Any, handles: dict[int, Any]):
        captured = list(step.captured_inputs)
        ids = {id(tensor) for tensor in captured}
        copies = [copy for variable in step.variables for copy in copies_of(variable)]
        seeds = [copy for copy in copies if id(copy.handle) in ids and is_seed(copy)]
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
