"""Where a model is to live: from the options of a Predictor to a backend."""

import dataclasses
import os
import pathlib
from typing import Any

from keras_mgpu_strategy import models
from keras_mgpu_strategy.devices.scope import active_strategy, make_strategy
from keras_mgpu_strategy.engines.backend import Backend
from keras_mgpu_strategy.engines.local import LocalBackend
from keras_mgpu_strategy.engines.options import Options
from keras_mgpu_strategy.engines.ray import model_file
from keras_mgpu_strategy.engines.ray.backend import RayBackend
from keras_mgpu_strategy.engines.ray.plan import RayOptions
from keras_mgpu_strategy.system.fork_guard import check_not_forked
from keras_mgpu_strategy.system.home_folder import expanded

_RAY_NAMES = frozenset(field.name for field in dataclasses.fields(RayOptions))


@dataclasses.dataclass(frozen=True)
class Placed:
    """A model in its place.

    Args:
        backend: Where it lives.
        profile: Folder for traces of runs, or None.
    """

    backend: Backend
    profile: str | os.PathLike[str] | None


def place(model: Any, options: dict[str, Any]) -> Placed:
    """Puts a Keras model in its place, rebuilt where it was built elsewhere."""
    check_not_forked()
    chosen, spread = _split(options)
    if spread is not None:
        packed = model_file.from_model(model)
        return Placed(RayBackend(packed, chosen, spread), None)
    strategy = active_strategy() or models.strategy_of(model) or make_strategy()
    replicated = models.replicate(model, strategy, chosen.precision)
    return Placed(LocalBackend(replicated, chosen), chosen.profile)


def place_file(
    path: str | os.PathLike[str],
    custom_objects: dict[str, Any] | None,
    safe_mode: bool,
    options: dict[str, Any],
) -> Placed:
    """Puts a saved model in its place."""
    path = expanded(path)
    check_not_forked()
    chosen, spread = _split(options)
    if spread is not None:
        packed = model_file.from_path(
            pathlib.Path(path), custom_objects, safe_mode=safe_mode
        )
        return Placed(RayBackend(packed, chosen, spread), None)
    models.check_path(path)  # before TensorFlow starts its devices
    replicated = models.read(
        path,
        active_strategy() or make_strategy(),
        custom_objects=custom_objects,
        safe_mode=safe_mode,
        precision=chosen.precision,
    )
    return Placed(LocalBackend(replicated, chosen), chosen.profile)


def _split(options: dict[str, Any]) -> tuple[Options, RayOptions | None]:
    """The options, and those of Ray where it is the engine."""
    plain = {k: v for k, v in options.items() if k not in _RAY_NAMES}
    of_ray = {k: v for k, v in options.items() if k in _RAY_NAMES}
    chosen = Options(**plain)
    if chosen.engine == "ray":
        _check_ray(chosen)
        return chosen, RayOptions(**of_ray)
    if of_ray:
        raise ValueError(
            f"Received {', '.join(sorted(of_ray))} with engine={chosen.engine!r}. "
            'Expected engine="ray" with it; devices of this process are chosen by '
            "mgpu.scope()."
        )
    return chosen, None


def _check_ray(chosen: Options) -> None:
    if active_strategy() is not None:
        raise ValueError(
            'Received engine="ray" inside the scope of a strategy. Leave it: Ray '
            "gives each process its device."
        )
    if chosen.profile is not None:
        raise ValueError(
            f'profile={chosen.profile!r} with engine="ray". Expected another engine: a '
            "trace holds one process."
        )
