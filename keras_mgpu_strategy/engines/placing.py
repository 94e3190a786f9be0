"""Chooses where a model lives: from the options of a Predictor to a backend."""

import dataclasses
import os
import pathlib
from typing import Any

from keras_mgpu_strategy import models
from keras_mgpu_strategy.devices.scope import active_strategy, make_strategy
from keras_mgpu_strategy.engines.interface import Backend
from keras_mgpu_strategy.engines.local import LocalBackend
from keras_mgpu_strategy.engines.options import Options
from keras_mgpu_strategy.engines.ray import model_file
from keras_mgpu_strategy.engines.ray.backend import RayBackend
from keras_mgpu_strategy.engines.ray.plan import RayOptions
from keras_mgpu_strategy.system.environment import expanded
from keras_mgpu_strategy.system.fork_guard import check_not_forked


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """A model on disk; see `load`."""

    path: str | os.PathLike[str]
    custom_objects: dict[str, Any] | None
    safe_mode: bool


def place(
    model: Any | SavedModel, options: Options, ray: RayOptions | None = None
) -> Backend:
    """Puts a model on its devices, rebuilt if it was built elsewhere."""
    check_not_forked()
    _check_together(options, ray)
    if options.engine == "ray":
        return RayBackend(_packed(model, options), options, ray or RayOptions())
    strategy = active_strategy()
    how = (options.precision, options.output_names)
    if not isinstance(model, SavedModel):
        strategy = strategy or models.strategy_of(model) or make_strategy()
        replicated = models.replicate(model, strategy, *how)
        return LocalBackend(replicated, options)
    path = expanded(model.path)
    models.check_path(path)  # before TensorFlow starts its devices
    replicated = models.read(
        path,
        strategy or make_strategy(),
        custom_objects=model.custom_objects,
        safe_mode=model.safe_mode,
        precision=options.precision,
        outputs=options.output_names,
    )
    return LocalBackend(replicated, options)


def _packed(model: Any | SavedModel, options: Options) -> model_file.ModelFile:
    if not isinstance(model, SavedModel):
        packed = model_file.from_model(model)
        if options.output_names:  # errors here, not in a process
            models.chains_of(model, options.output_names)
        return packed
    path = pathlib.Path(expanded(model.path))
    return model_file.from_path(path, model.custom_objects, safe_mode=model.safe_mode)


def _check_together(options: Options, ray: RayOptions | None) -> None:
    if not isinstance(ray, RayOptions | None):
        raise TypeError(
            f"ray={ray!r} of type {type(ray).__name__}. Expected mgpu.RayOptions(...), "
            "or None."
        )
    if options.engine != "ray":
        if ray is not None:
            raise ValueError(
                f"Received {ray} with engine={options.engine!r}. Expected "
                'engine="ray" with it; devices of this process are chosen by '
                "mgpu.scope()."
            )
        return
    if active_strategy() is not None:
        raise ValueError(
            'Received engine="ray" inside the scope of a strategy. Leave it: Ray '
            "gives each process its device."
        )
    if options.profile is not None:
        raise ValueError(
            f'profile={options.profile!r} with engine="ray". Expected another engine: '
            "a trace holds one process."
        )
