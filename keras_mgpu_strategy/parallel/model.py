"""`ParallelModel`: a Keras model that runs another one on several devices.

Both share the same variables. No row is lost, none counts twice in a loss or a metric,
and none is repeated in training with `fit`. XLA is never used.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_mgpu_strategy.devices.scope import active_strategy
from keras_mgpu_strategy.models import is_overridden
from keras_mgpu_strategy.parallel import towers
from keras_mgpu_strategy.parallel.choosing import choose_devices
from keras_mgpu_strategy.system.tracebacks import short_traceback
from keras_mgpu_strategy.types import Nest

_STEPS = ("train_step", "test_step", "compute_loss", "compute_metrics")
_USE_THE_MODEL = "Use the model itself for `fit` and `evaluate`; `predict` works."


@keras.saving.register_keras_serializable(package="keras_mgpu_strategy")
class ParallelModel(keras.Model):
    """A model whose batches are split over devices; see `make_parallel`.

    ```
    call(batch):
        slices = a share of the batch for each device       # on the CPU
        results = model(slice) for each slice               # on its device
        return results, joined                              # on the CPU
    ```

    A saved model can be read with `keras.models.load_model` once this class has been
    imported, and then runs on every GPU of the machine it is read on.

    Args:
        model: Built or unbuilt Keras model.
        devices: Names of logical devices, one for each tower.
        name: Name of the new model; None to derive it from that of `model`.
    """

    def __init__(
        self, model: keras.Model, devices: Sequence[str], name: str | None = None
    ):
        # Inputs reach the model as they are; it casts them itself.
        super().__init__(
            name=name or f"parallel_{model.name}",
            dtype=model.dtype_policy,
            autocast=False,
        )
        self.model = model
        self._devices = tuple(devices)
        self._devices_in_use = self._devices
        self.supports_jit = False  # an XLA cluster is on one device
        self.supports_masking = True
        self.built = model.built

    @property
    def devices(self) -> tuple[str, ...]:
        """Where the towers run, such as `("GPU:0", "GPU:1")`."""
        return self._devices

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs, by which losses and metrics may be given."""
        return self.model.output_names  # type: ignore[attr-defined]

    @short_traceback
    def call(self, inputs: Nest, training: bool | None = None) -> Nest:
        """Runs one batch, with the same number of rows in every tensor."""
        if active_strategy() is not None:
            raise ValueError(
                f"{self.name!r} was called under a tf.distribute strategy, which "
                "places its replicas itself. Give its `model` to mgpu.Predictor, or "
                "call it outside the strategy's scope."
            )
        devices = self._devices_in_use
        if training and len(devices) > 1:
            num_rows = towers.num_rows_of(inputs)
            # A slice that repeats another tower's row, as in prediction, would count
            # twice in statistics kept during training.
            if isinstance(num_rows, int) and num_rows < len(devices):
                devices = devices[:1]
        return towers.run(
            lambda part: self.model(part, training=training),
            inputs,
            devices,
            with_gradients=bool(training),
        )

    @short_traceback
    def train_step(self, data: Any) -> dict[str, Any]:
        """Keras' own step: on one device if there are fewer rows than devices."""
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        num_rows = towers.num_rows_of(x)
        if isinstance(num_rows, int):  # `call` sees that too
            return super().train_step(data)
        # The choice is made around the step, not within `call`: a backward pass
        # through tf.cond would send activations from device to device.
        return tf.cond(
            num_rows >= len(self._devices),
            lambda: self._train_on(self._devices, data),
            lambda: self._train_on(self._devices[:1], data),
        )

    @short_traceback
    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Keras' own loss; refuses cases that would come out wrong."""
        own = [step for step in _STEPS if is_overridden(self.model, step)]
        if own:
            raise ValueError(
                f"{type(self.model).__name__} overrides {', '.join(own)}, which a "
                f"parallel model would not call. {_USE_THE_MODEL}"
            )
        regularized = [v for v in self.trainable_variables if v.regularizer is not None]
        if len(self._devices) > 1 and len(self.losses) > len(regularized):
            raise ValueError(
                f"Layers of {self.model.name!r} add losses computed from the rows "
                "(`add_loss` or `activity_regularizer`). Each device would add its "
                "own, and whether they are to be summed or averaged is not known. "
                f"{_USE_THE_MODEL}"
            )
        return super().compute_loss(*args, **kwargs)

    @short_traceback
    def compute_output_spec(self, inputs: Nest, training: bool | None = None) -> Nest:
        """Symbolic outputs of `model`."""
        return self.model.compute_output_spec(inputs, training=training)

    def compute_mask(self, inputs: Nest, previous_mask: Any) -> None:
        """Returns None: outputs have the masks that `model` gave them."""

    def get_config(self) -> dict[str, Any]:
        """The model and its name; devices belong to a machine and are not saved."""
        model = keras.saving.serialize_keras_object(self.model)
        return {"name": self.name, "model": model}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "ParallelModel":
        """Recreates the model on every GPU of this machine."""
        model = keras.saving.deserialize_keras_object(
            config["model"], custom_objects=custom_objects
        )
        return cls(model, choose_devices(), name=config["name"])

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Does nothing: the model in the configuration has already been built."""

    def _train_on(self, devices: tuple[str, ...], data: Any) -> dict[str, Any]:
        self._devices_in_use = devices
        try:
            return super().train_step(data)
        finally:
            self._devices_in_use = self._devices
