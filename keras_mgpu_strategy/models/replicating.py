"""Keras models, mirrored on every replica.

A model of this strategy and precision is used as it is. Any other is rebuilt: the copy
has its layers, state and compile settings and shares no variable; the original is not
changed. Every variable is mirrored over exactly the strategy's devices.
"""

import contextlib
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.element_forms import as_given
from keras_mgpu_strategy.models.agreement import disagreement
from keras_mgpu_strategy.models.carrying import carry_attributes
from keras_mgpu_strategy.models.cloning import clone
from keras_mgpu_strategy.models.compile_settings import compiled_for_xla, copy_compile
from keras_mgpu_strategy.models.layer_outputs import part_of
from keras_mgpu_strategy.models.libraries import (
    check_supported,
    input_spec_of,
    library_of,
    note_strategy,
    output_shapes_of,
    takes_sparse,
)
from keras_mgpu_strategy.models.overrides import (
    check_on_object,
    check_predict,
    feeding_of,
)
from keras_mgpu_strategy.models.precision import (
    check_not_quantized,
    check_precision,
    has_precision,
    precision_scope,
    with_float32_outputs,
)
from keras_mgpu_strategy.models.replicated import ReplicatedModel
from keras_mgpu_strategy.models.stand_ins import name_of_seed
from keras_mgpu_strategy.models.state import check_same, copy_flags, copy_state
from keras_mgpu_strategy.models.variables import (
    belongs_to,
    check_mirrored,
    variables_of,
)
from keras_mgpu_strategy.system.messages import cause_of
from keras_mgpu_strategy.types import Feeding, Nest


def replicate(
    model: Any,
    strategy: tf.distribute.Strategy,
    precision: str | None = None,
    outputs: tuple[str, ...] | None = None,
) -> ReplicatedModel:
    """Puts a Keras model on every replica; one that is not built is left for `build`.

    With a precision, all float variables and computations have that dtype, and outputs
    are float32. With names of `outputs`, the model is only what they need. Raises
    TypeError for what is no Keras model, ValueError if it cannot run on several
    replicas, be rebuilt, or have the precision, or if there are no such outputs.
    """
    library_of(model)
    check_predict(model)
    given, part = model, part_of(model, outputs)
    model = part.model
    check_supported(model, strategy)
    is_kept = belongs_to(model, strategy) and has_precision(model, precision)
    for_xla = compiled_for_xla(given)
    if not is_kept:
        check_on_object(model)
        model = _rebuild(model, strategy, precision)
        check_mirrored(variables_of(model), strategy)
    is_live = is_kept and outputs is None
    feeding = feeding_of(given)
    replicated = ReplicatedModel(
        model=model,
        strategy=strategy,
        call=_forward(part.step_of(model), model, feeding, precision),
        input_spec=input_spec_of(given if outputs else model),
        # A custom `predict_step` may not return what the layers give.
        output_shapes=None
        if feeding.whole or part.watched
        else output_shapes_of(model),
        precision=precision,
        outputs=outputs,
        task=given if outputs and feeding.raw else None,
        feeding=feeding,
        autograph=library_of(model).__name__ == "tf_keras",
        # A rebuilt model is compiled under the strategy, for which Keras reports False.
        compiled_for_xla=lambda: compiled_for_xla(model) if is_live else for_xla,
    )
    _check_graph(replicated)
    return replicated


def build(replicated: ReplicatedModel, inputs: Nest) -> None:
    """Creates the variables of an unbuilt model on every replica, from an example."""
    for member in replicated.members:
        build(member, inputs)
    if replicated.is_built:
        return
    model, strategy = replicated.model, replicated.strategy
    precision = replicated.precision
    with strategy.scope(), precision_scope(library_of(model), precision):
        replicated.call(tf.nest.map_structure(tf.convert_to_tensor, inputs))
        check_mirrored(variables_of(model), strategy)
    check_precision(model, precision)
    note_strategy(model, strategy)
    copy_compile(model, model)


def _rebuild(
    model: Any, strategy: tf.distribute.Strategy, precision: str | None
) -> Any:
    library = library_of(model)
    label = f"Model {model.name!r} ({type(model).__name__}) cannot be rebuilt"
    advice = (
        "Build or load it where nothing has to be rebuilt, inside a scope:\n"
        "    with mgpu.scope():\n"
        "        model = ...\n"
        "or give its class a `get_config` that returns all arguments of `__init__`, "
        "and register it with `keras.saving.register_keras_serializable`."
    )
    try:
        new = _clone(model, strategy, library, precision)
    # User code runs here (constructors, get_config, build) and may raise anything.
    except Exception as error:
        how = "on every device"
        if precision:
            how = f"with precision={precision!r}"
            advice = (
                "Every layer must be made from its configuration and take its dtype "
                "from its policy (`self.compute_dtype`). Pass precision=None to run "
                "the model as it is."
            )
        raise ValueError(f"{label} {how}: {cause_of(error)}\n{advice}") from error
    copy_state(model, new)
    difference = None if precision else disagreement(model, new)
    if difference:
        raise ValueError(f"{label} on every device: {difference}\n{advice}")
    copy_compile(model, new)
    return new


def _clone(
    model: Any,
    strategy: tf.distribute.Strategy,
    library: ModuleType,
    precision: str | None,
) -> Any:
    if precision:
        check_not_quantized(model)
    # Keras warns about lambdas in configurations, which never leave this process here,
    # and about layers that it cannot build, which the comparison finds.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with strategy.scope(), _unnamed_variables(library):
            new = clone(model, library, precision)
        copy_flags(model, new)
        # Outside the scope: variables of another strategy cannot be read in it.
        check_same(model, new, precision)
        carry_attributes(model, new, strategy, precision)
    check_precision(new, precision)
    return new


def _unnamed_variables(library: ModuleType) -> contextlib.AbstractContextManager[Any]:
    """Leaves it to Keras 3 to name variables; tf_keras has only TensorFlow's names.

    TensorFlow keeps 35 KiB, until `clear_session`, for each name that a variable had.
    Seeds keep theirs, by which they are found.
    """
    if library.__name__ == "tf_keras":
        return contextlib.nullcontext()

    def create(next_creator: Callable[..., Any], **options: Any) -> Any:
        name = name_of_seed(str(options.get("name"))) or "variable"
        with tf.name_scope(""):
            return next_creator(**{**options, "name": name})

    return tf.variable_creator_scope(create)


def _forward(
    step: Callable[[Nest], Nest],
    model: Any,
    feeding: Feeding,
    precision: str | None,
) -> Callable[[Nest], Nest]:
    def call(inputs: Nest) -> Nest:
        given = as_given(inputs)
        return step(given if feeding.whole else (given,))

    run = _explained(call, model) if getattr(model, "run_eagerly", False) else call
    return with_float32_outputs(run, precision) if precision else run


def _explained(call: Callable[[Nest], Nest], model: Any) -> Callable[[Nest], Nest]:
    """Explains errors of a model that Keras runs eagerly, as it is compiled here."""

    def run(inputs: Nest) -> Nest:
        try:
            return call(inputs)
        # User code runs here and may raise anything.
        except Exception as error:
            if tf.executing_eagerly():
                raise
            raise ValueError(
                f"Model {model.name!r} ({type(model).__name__}) is compiled with "
                "run_eagerly=True, and its code cannot become a graph, as all models "
                f"do here: {cause_of(error)}\nExpected operations of TensorFlow or "
                "Keras alone. Wrap Python and NumPy code in `tf.numpy_function`, or "
                "call the model's own `predict`."
            ) from error

    return run


def _check_graph(replicated: ReplicatedModel) -> None:
    """Checks right away, if inputs are declared, that the code can become a graph."""
    model, spec = replicated.model, replicated.input_spec
    if spec is None or not getattr(model, "run_eagerly", False):
        return
    # For whole elements and sparse inputs, what layers are given depends on the rows.
    if replicated.feeding.whole is None and not takes_sparse(model):
        with replicated.strategy.scope():
            function = tf.function(replicated.call, autograph=replicated.autograph)
            function.get_concrete_function(spec)
