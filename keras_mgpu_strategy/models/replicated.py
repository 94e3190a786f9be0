"""A model whose variables live on every replica, with what it declares.

It never stands for a model on one device while its strategy has several. A task's rows
are preprocessed as in its own `predict`: by the same function, traced with AutoGraph,
on the CPU, in any number of threads at once.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.element_forms import SparseRows, as_given, without_none, x_of
from keras_mgpu_strategy.models.libraries import layers_of, parts_of
from keras_mgpu_strategy.models.overrides import preprocess_of
from keras_mgpu_strategy.models.variables import hidden_variables, variables_of
from keras_mgpu_strategy.system.messages import cause_of
from keras_mgpu_strategy.types import X_ALONE, Feeding, Nest


class Models(list[Any]):
    """Several models in place of one; callbacks can set attributes on it."""


@dataclasses.dataclass(frozen=True)
class ReplicatedModel:
    """A model, the strategy that mirrors it, and its forward pass in inference mode.

    `call` takes tensors of shape `(rows, ...)` of what `feeding` says, in replica
    context or for one device in `strategy.scope(), tf.device(device)`. Specs and shapes
    include the batch axis; None if not declared. With a `precision`, float outputs are
    float32. `outputs` are the names of those that were chosen, if any, and `task` is
    then what they are part of, if it preprocesses rows. `variables`, `graph` (a
    digest) and the name of its `folder` are those of a SavedModel. One with `members`
    gives `Runs` of them.
    """

    model: Any
    strategy: tf.distribute.Strategy
    call: Callable[[Nest], Nest]
    input_spec: Nest | None = None
    output_shapes: Nest | None = None
    precision: str | None = None
    outputs: tuple[str, ...] | None = None
    task: Any = None
    variables: tuple[Any, ...] | None = None
    graph: str | None = None
    folder: str | None = None
    feeding: Feeding = X_ALONE
    autograph: bool = False
    compiled_for_xla: Callable[[], bool | None] = lambda: None
    members: "tuple[ReplicatedModel, ...]" = ()

    @property
    def each(self) -> "tuple[ReplicatedModel, ...]":
        """The members, or the model itself if it has none."""
        return self.members or (self,)

    def preprocessing(self, raw_spec: Nest) -> "Preprocessing | None":
        """Returns what is done to rows of this `tf.TensorSpec` nest before `call`."""
        if self.members:
            return self.members[0].preprocessing(raw_spec)
        task = self.model if self.task is None else self.task
        function = preprocess_of(task) if self.feeding.raw else None
        if function is None:
            return None
        name, is_whole = type(task).__name__, self.feeding.whole is not None
        return Preprocessing(name, function, raw_spec, is_whole=is_whole)

    def in_form(self, spec: Nest, flat: Sequence[tf.Tensor]) -> Nest:
        """Inputs in the user's structure; in the model's own if it has one input.

        Of several models, each brings them into its own form.
        """
        # Keras looks for the structure that it was built with.
        is_x = self.input_spec is not None and self.feeding.whole is None
        is_one = is_x and len(tf.nest.flatten(self.input_spec)) == 1
        if self.members or not is_one:
            return tf.nest.pack_sequence_as(spec, flat)
        rows = flat[0] if len(flat) == 1 else SparseRows(*flat)
        return tf.nest.pack_sequence_as(self.input_spec, [rows])

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the models; of a SavedModel, that of its folder."""
        return tuple(each.folder or each.model.name for each in self.each)

    @property
    def float_dtypes(self) -> tuple[str, ...]:
        """Dtypes of floats that layers compute with; empty for a SavedModel."""
        if self.precision:
            return (self.precision,)
        models = [each.model for each in self.each if each.folder is None]
        layers = itertools.chain.from_iterable(map(layers_of, models))
        found = {str(x.compute_dtype) for x in layers if _computes(x)}
        return tuple(sorted(x for x in found if tf.as_dtype(x).is_floating))

    @property
    def is_built(self) -> bool:
        """Whether the variables exist; if not, `models.build` creates them."""
        if self.members:
            return all(member.is_built for member in self.members)
        return bool(getattr(self.model, "built", True))

    def all_variables(self) -> list[Any]:
        """Those of the model, and those in its layers that Keras does not track."""
        if self.members:
            found = [v for member in self.members for v in member.all_variables()]
            return list({id(variable): variable for variable in found}.values())
        if self.variables is not None:
            return list(self.variables)
        return [*variables_of(self.model), *hidden_variables(self.model)]


class Preprocessing:
    """A task's preprocessing, traced for rows of `raw_spec`; `spec` is its results'.

    If `is_whole`, the model is given all that `function` returns, not x alone.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Nest],
        raw_spec: Nest,
        *,
        is_whole: bool,
    ):
        self._name = name
        self._is_whole = is_whole

        def run(*arguments: Nest) -> Nest:
            return function(*as_given(arguments))

        try:
            with tf.device("CPU:0"):
                traced = tf.function(run).get_concrete_function(*_arguments(raw_spec))
        # User code runs here and may raise anything.
        except Exception as error:
            leaves = tf.nest.flatten(raw_spec)
            shown = [f"{x.dtype.name} of shape {tuple(x.shape)}" for x in leaves]
            raise ValueError(
                f"The preprocessing of {name} fails on {', '.join(shown)}: "
                f"{cause_of(error)}\nPass rows that its `predict` takes: texts as an "
                "array or list of str, files as one of `mgpu.files`; or set "
                "`preprocessor = None` before passing the model, and pass rows that "
                "are preprocessed already."
            ) from error
        self._traced: Any = traced
        given = self._given(self._traced.structured_outputs)
        self.spec: Nest = tf.nest.map_structure(self._checked, given)

    def __call__(self, inputs: Nest) -> Nest:
        """Preprocesses a batch, a nest of NumPy arrays of shape `(num_rows, ...)`."""
        with tf.device("CPU:0"):
            tensors = tf.nest.map_structure(tf.convert_to_tensor, inputs)
            outputs = self._given(self._traced(*_arguments(tensors)))
        num_rows = len(tf.nest.flatten(inputs)[0])

        def rows(leaf: tf.Tensor) -> np.ndarray:
            array = np.asarray(leaf)
            if array.shape[:1] != (num_rows,):
                raise ValueError(
                    f"The preprocessing of {self._name} gave an array of shape "
                    f"{array.shape} for {num_rows} rows, expected ({num_rows}, ...)."
                )
            return array

        return tf.nest.map_structure(rows, outputs)

    def _given(self, outputs: Nest) -> Nest:
        return without_none(outputs if self._is_whole else x_of(outputs))

    def _checked(self, leaf: Any) -> tf.TensorSpec:
        is_tensor = isinstance(leaf, tf.Tensor | tf.TensorSpec)
        if not is_tensor or not leaf.shape.rank:
            shape = getattr(leaf, "shape", None)
            raise ValueError(
                f"The preprocessing of {self._name} returns a {type(leaf).__name__} of "
                f"shape {shape}, expected dense tensors with a row for each row. Let "
                "it pad its rows to one length."
            )
        return tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype)


def _computes(layer: Any) -> bool:
    # An input has a dtype, and what consists of layers a policy: neither computes.
    is_input = type(layer).__name__ == "InputLayer"
    has_dtype = getattr(layer, "compute_dtype", None) is not None
    return has_dtype and not (is_input or parts_of(layer))


def _arguments(data: Nest) -> tuple[Nest, ...]:
    return data if isinstance(data, tuple) else (data,)
