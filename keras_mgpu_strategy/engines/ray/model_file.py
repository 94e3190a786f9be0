"""A saved model that travels to other processes and machines."""

import dataclasses
import io
import pathlib
import tarfile
import tempfile
from typing import Any

import keras
import tensorflow as tf

from keras_mgpu_strategy import models
from keras_mgpu_strategy.devices.scope import make_strategy
from keras_mgpu_strategy.engines.ray.pickling import can_pickle


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """The bytes of a saved model, and how to read them."""

    path: pathlib.Path  # its suffix gives the format
    content: bytes  # a tar archive for a folder
    is_folder: bool
    custom_objects: dict[str, Any]
    safe_mode: bool
    aside: models.Aside | None = None  # what the file does not keep of a model

    def read(
        self,
        precision: str | None,
        outputs: tuple[str, ...] | None = None,
        strategy: tf.distribute.Strategy | None = None,
    ) -> models.ReplicatedModel:
        """Reads the model onto the devices of a strategy, or of this process."""
        with tempfile.TemporaryDirectory(prefix="mgpu-model-") as folder:
            path = pathlib.Path(folder) / self.path.name
            if self.is_folder:
                with tarfile.open(fileobj=io.BytesIO(self.content)) as archive:
                    archive.extractall(path, filter="data")
            else:
                path.write_bytes(self.content)
            try:
                return models.read(
                    path,
                    strategy or make_strategy(),
                    custom_objects=self.custom_objects,
                    safe_mode=self.safe_mode,
                    precision=precision,
                    outputs=outputs,
                    aside=self.aside,
                )
            except (OSError, ValueError) as error:  # names the file that the user knows
                text = str(error).replace(str(path), str(self.path))
                raise type(error)(text) from error


def from_path(
    path: pathlib.Path, custom_objects: dict[str, Any] | None, *, safe_mode: bool
) -> ModelFile:
    """Packs a model that is on disk."""
    if not path.exists():
        raise FileNotFoundError(f"There is no model {path}.")
    content = _archived(path) if path.is_dir() else path.read_bytes()
    # What is registered in this process is not in others.
    objects = {**keras.saving.get_custom_objects(), **(custom_objects or {})}
    return ModelFile(path, content, path.is_dir(), objects, safe_mode)


def from_model(model: Any) -> ModelFile:
    """Packs a Keras model that is in memory, with the user's classes that it uses."""
    models.check_predict(model)
    models.check_on_object(model)
    with tempfile.TemporaryDirectory(prefix="mgpu-model-") as folder:
        path = pathlib.Path(folder) / "model.keras"
        model.save(path)
        aside = models.put_aside(model, can_pickle)
        objects = models.custom_objects_of(model)
        if aside.compiled is not None:
            objects |= aside.compiled.custom_objects
        # Its code comes from the process that packs it.
        file = from_path(path, objects, safe_mode=False)
        return dataclasses.replace(file, aside=aside)


def _archived(folder: pathlib.Path) -> bytes:
    buffer = io.BytesIO()
    # Links would lead to places that exist only on this machine.
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as archive:
        archive.add(folder, arcname=".")
    return buffer.getvalue()
