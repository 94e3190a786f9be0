"""`make_parallel`: checks its arguments and makes the model."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_mgpu_strategy.devices.names import Devices
from keras_mgpu_strategy.devices.scope import active_strategy
from keras_mgpu_strategy.models import check_predict, is_overridden, preprocess_of
from keras_mgpu_strategy.models.libraries import (
    check_backend,
    has_free_batch,
    library_of,
    stateful_layers,
    symbols_of,
)
from keras_mgpu_strategy.models.variables import strategy_of
from keras_mgpu_strategy.parallel.choosing import choose_devices
from keras_mgpu_strategy.parallel.model import ParallelModel
from keras_mgpu_strategy.system.fork_guard import check_not_forked
from keras_mgpu_strategy.system.tracebacks import short_traceback


@short_traceback
def make_parallel(
    model: keras.Model,
    gpu_count: int | None = None,
    *,
    gpus: int | Sequence[int] | None = None,
    devices: Devices = None,
) -> ParallelModel:
    """Makes one Keras model that splits each batch over several devices.

    The signature is that of the 2016 recipe, and `gpus` is as in Keras'
    `multi_gpu_model`. Unlike the recipe it loses no row, whatever the batch.

    ```
    parallel = mgpu.make_parallel(model, gpu_count=4)
    parallel.compile(optimizer="adam", loss="mse")
    parallel.fit(x, y, batch_size=256)
    model.predict(x)  # the same weights
    ```

    Args:
        model: A Keras 3 model. It is used, not copied, and stays unchanged; its compile
            settings are not carried over.
        gpu_count: Number of GPUs, starting with the first.
        gpus: Number of GPUs, or a list of their ids.
        devices: Names of devices, as in `scope()`.

    Returns:
        A model, not compiled, whose attribute `model` is the given model. With one
        device it has one tower.

    At most one of `gpu_count`, `gpus` and `devices` may be given; without any, every
    GPU is used. If TensorFlow sees no GPU, logical CPU devices stand in for
    `gpu_count`, `gpus` and the default.

    Raises:
        TypeError: An argument has a wrong type, or the model is from `tf_keras`.
        ValueError: A device does not exist or is requested twice; more than one
            argument is given; the model cannot be split, or belongs to a strategy.
        RuntimeError: This process was forked after TensorFlow had started.
    """
    check_not_forked()
    _check_model(model)
    chosen = choose_devices(gpu_count, gpus, devices)
    if len(chosen) > 1:
        _check_splits(model)
    return ParallelModel(model, chosen)


def _check_model(model: Any) -> None:
    library = library_of(model)
    if library is not keras:
        raise TypeError(
            f"make_parallel received {model.name!r}, a model of tf_keras. Expected a "
            "model of Keras 3. mgpu.Predictor and mgpu.predict_proba take both."
        )
    check_backend(library)
    check_predict(model)
    if is_overridden(model, "predict_step"):
        raise ValueError(
            f"{type(model).__name__} overrides predict_step, which a parallel model "
            "would not call. Use mgpu.Predictor, which does."
        )
    if preprocess_of(model) is not None:
        raise ValueError(
            f"{type(model).__name__} has a preprocessor, which a parallel model would "
            "not call. Use mgpu.Predictor, which does, or set `preprocessor = None` "
            "and pass rows that are preprocessed already."
        )
    if isinstance(model, ParallelModel):
        raise ValueError(
            f"{model.name!r} is parallel already, on {', '.join(model.devices)}. Pass "
            "its attribute `model` to have it on other devices."
        )
    if active_strategy() is not None or strategy_of(model) is not None:
        raise ValueError(
            "make_parallel places towers itself, and cannot be used with a "
            f"tf.distribute strategy: {model.name!r} was built in the scope of one, or "
            "one is active. Leave the scope and build or load the model outside, or "
            "use mgpu.Predictor."
        )


def _check_splits(model: keras.Model) -> None:
    stateful = [layer.name for layer in stateful_layers(model)]
    if stateful:
        raise ValueError(
            f"Model {model.name!r} has stateful recurrent layers {stateful}: each "
            "batch continues where the one before it ended, so rows cannot be dealt "
            "out to several devices. Use one device, or `stateful=False`."
        )
    fixed = {tensor.shape[0] for tensor in symbols_of(model, "inputs")} - {None}
    if fixed and not has_free_batch(model):
        raise ValueError(
            f"Model {model.name!r} declares a batch of {fixed.pop()} rows, and each "
            "device is given fewer. Build it with an open batch: "
            "keras.Input(shape=...) without `batch_size`."
        )
