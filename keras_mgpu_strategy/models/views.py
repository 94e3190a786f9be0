"""Test-time views: what a model sees in place of its rows, and the way back."""

import dataclasses
import difflib
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.digests.code import digest_of_code
from keras_mgpu_strategy.element_forms import as_given
from keras_mgpu_strategy.models.replicated import ReplicatedModel
from keras_mgpu_strategy.models.turns import TURNS, is_tensor, shown, turned
from keras_mgpu_strategy.system.tracebacks import short_traceback
from keras_mgpu_strategy.types import Nest


@short_traceback
@dataclasses.dataclass(frozen=True, repr=False)
class View:
    """A view of the rows by functions of your own, for `views=`.

    The functions are TensorFlow code that is compiled with the model. They treat each
    row alone, keep structure, shapes and dtypes, and use no variables.

    Args:
        forward: Called with the rows of one micro-batch: a tensor of shape `(n, ...)`
            if the model declares one input, otherwise the nest of tensors that it is
            given. Returns what the model sees in their place.
        inverse: Called with what the model returns for them, a nest of tensors of shape
            `(n, ...)`. Returns what belongs to the rows themselves, such as maps
            flipped back. None: outputs stay as they are.

    Raises:
        TypeError: `forward` or `inverse` cannot be called.
    """

    forward: Callable[[Any], Any]
    inverse: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        """Checks the functions."""
        for name, value in vars(self).items():
            is_absent = name == "inverse" and value is None
            if not (callable(value) or is_absent):
                raise TypeError(
                    f"mgpu.View received {name}={value!r:.80} of type "
                    f"{type(value).__name__}. Expected a function of tensors."
                )

    def __repr__(self) -> str:
        """The names of the functions."""
        functions = [self.forward, *([self.inverse] if self.inverse else [])]
        names = [getattr(x, "__name__", type(x).__name__) for x in functions]
        return f"View({', '.join(names)})"


NAMES = ("identity", *TURNS)


def check_views(views: Any) -> None:
    """Raises TypeError or ValueError for a value of the option that is not valid."""
    if views is None:
        return
    expected = f"Expected a list of names ({', '.join(NAMES)}) or mgpu.View(...)."
    is_listed = isinstance(views, Sequence) and not isinstance(views, str | bytes)
    if not is_listed or not all(isinstance(view, str | View) for view in views):
        kind = type(views).__name__
        raise TypeError(f"views={views!r:.160} of type {kind}. {expected}")
    if not views:
        raise ValueError(f"views={views!r} names nothing. {expected}")
    for view in views:
        if isinstance(view, str) and view not in NAMES:
            near = difflib.get_close_matches(view, NAMES, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"views has {view!r}.{hint} {expected}")
        if list(views).count(view) > 1:
            raise ValueError(f"views has {view!r} twice. Expected each view once.")


def described(views: Sequence[str | View]) -> list[str]:
    """What distinguishes views from others: names, and digests of the user's code."""
    return [
        x if isinstance(x, str) else f"View {digest_of_code([x.forward, x.inverse])}"
        for x in views
    ]


def through(view: str | View, member: ReplicatedModel) -> Callable[[Nest], Nest]:
    """The forward pass of a model on a view, with its outputs brought back."""
    # AutoGraph is only for models that need it.
    call = tf.autograph.to_graph(member.call) if member.autograph else member.call
    if view == "identity":
        return call

    def run(inputs: Nest) -> Nest:
        x, given = _x_and_rest(member, inputs)
        if isinstance(view, str):
            new, back = turned(view, x)
            return back(call(given(new)))
        outputs = call(given(_applied(view, "forward", x)))
        return outputs if view.inverse is None else _applied(view, "inverse", outputs)

    return run


def _x_and_rest(
    member: ReplicatedModel, inputs: Nest
) -> tuple[Nest, Callable[[Nest], Nest]]:
    """What views apply to, and what makes the model's inputs of the result."""
    spec, element = member.input_spec, as_given(inputs)
    if member.feeding.whole is None:
        if spec is None or len(tf.nest.flatten(spec)) != 1:
            return element, lambda x: x
        (leaf,) = tf.nest.flatten(element)
        return leaf, lambda x: tf.nest.pack_sequence_as(spec, [x])
    if not isinstance(element, tuple) or not element:
        return element, lambda x: x
    # Labels and weights stay.
    return element[0], lambda x: type(element)((x, *element[1:]))


def _applied(view: View, which: str, nest: Nest) -> Nest:
    """The result of one of the user's functions, which must be like its argument."""
    name = f"The function {which!r} of {view!r}"
    try:
        result = getattr(view, which)(nest)
    # User code runs here and may raise anything.
    except Exception as error:
        error.add_note(f"{name} was given {shown(nest)}.")
        raise

    def checked(old: Any, new: Any) -> Any:
        if not is_tensor(old):
            return new
        new = tf.convert_to_tensor(new)
        if new.dtype != old.dtype or not new.shape.is_compatible_with(old.shape):
            raise ValueError("other shape or dtype")
        return tf.ensure_shape(new, old.shape)

    try:
        return tf.nest.map_structure(checked, nest, result)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} returned {shown(result)} for {shown(nest)}. Expected the same "
            "structure, shapes and dtypes, and one row for each row."
        ) from error
