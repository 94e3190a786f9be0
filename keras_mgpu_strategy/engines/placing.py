"""Chooses where a model lives: from the options of a Predictor to a backend."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from keras_mgpu_strategy import models
from keras_mgpu_strategy.devices.scope import active_strategy, make_strategy
from keras_mgpu_strategy.engines.interface import Backend
from keras_mgpu_strategy.engines.local import local_backend
from keras_mgpu_strategy.engines.options import Options
from keras_mgpu_strategy.engines.ray import model_file
from keras_mgpu_strategy.engines.ray.backend import RayBackend
from keras_mgpu_strategy.engines.ray.plan import RayOptions
from keras_mgpu_strategy.system.environment import expanded
from keras_mgpu_strategy.system.fork_guard import check_not_forked
from keras_mgpu_strategy.system.garbage import before_a_model, collecting_rarely


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """A model on disk; see `load`."""

    path: str | os.PathLike[str]
    custom_objects: dict[str, Any] | None
    safe_mode: bool


def place(
    model: Any | SavedModel, options: Options, ray: RayOptions | None = None
) -> Backend:
    """Puts a model, or a list of them, on its devices; rebuilt if built elsewhere."""
    check_not_forked()
    _check_together(options, ray)
    given = _each(model)
    options = options.for_models(len(given))
    if options.engine == "ray":
        packed = [_packed(part, options) for part in given]
        files = dict(zip(_names(given), packed, strict=True))
        return RayBackend(files, options, ray or RayOptions())
    kinds = list(map(_kind_of, given))  # before TensorFlow starts its devices
    before_a_model()
    strategy = active_strategy() or _strategy_of(given) or make_strategy()
    with collecting_rarely():
        pairs = zip(given, kinds, strict=True)
        members = [_replicated(*pair, strategy, options) for pair in pairs]
        return local_backend(members, _names(given), options)


def _each(model: Any) -> list[Any]:
    if not isinstance(model, list | tuple):
        return [model]
    if not model:
        raise ValueError("Received an empty list of models, expected at least one.")
    return list(model)


def _names(given: Sequence[Any]) -> list[str]:
    """How errors name each model."""
    parts = [
        os.fspath(part.path) if isinstance(part, SavedModel) else part.name
        for part in given
    ]
    return [f"model {index} ({name!r})" for index, name in enumerate(parts)]


def _strategy_of(given: Sequence[Any]) -> Any:
    """The strategy that one of the models in memory is mirrored over, if any."""
    in_memory = (part for part in given if not isinstance(part, SavedModel))
    return next(filter(None, map(models.strategy_of, in_memory)), None)


def _kind_of(model: Any | SavedModel) -> str | None:
    """The kind of a model on disk; raises ValueError where none looks complete."""
    is_saved = isinstance(model, SavedModel)
    return models.kind_of(expanded(model.path)) if is_saved else None


def _replicated(
    model: Any | SavedModel, kind: str | None, strategy: Any, options: Options
) -> models.ReplicatedModel:
    how = (options.precision, options.output_names)
    if not isinstance(model, SavedModel):
        return models.replicate(model, strategy, *how)
    return models.read(
        expanded(model.path),
        strategy,
        custom_objects=model.custom_objects,
        safe_mode=model.safe_mode,
        precision=options.precision,
        outputs=options.output_names,
        kind=kind,
    )


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
