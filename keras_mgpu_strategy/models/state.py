"""What a rebuilt model must have in common with its original, and gets from it.

Layers must pair up by class and configuration, variables by shape and dtype, but for
the dtypes of floats if a precision was requested. All state is copied: weights,
statistics, seeds, vocabularies, `trainable` flags and what layers save by own hooks.
"""

import re
import sys
import tempfile
from typing import Any

import numpy as np

from keras_mgpu_strategy.digests.packages import root_of
from keras_mgpu_strategy.models.libraries import is_library_class, layers_of
from keras_mgpu_strategy.models.precision import cast_for, is_float, is_quantized
from keras_mgpu_strategy.models.variables import (
    assign,
    host_value,
    name_of,
    outside_scopes,
    variables_of,
)

_FREE_KEYS = frozenset(
    {"name", "seed", "trainable", "vocabulary", "vocabulary_size", "idf_weights"}
)
_HOOKS = ("save_own_variables", "load_own_variables", "save_assets", "load_assets")


def check_same(source: Any, target: Any, precision: str | None) -> None:
    """Raises ValueError if a rebuilt model differs from its original."""
    old, new = layers_of(source), layers_of(target)
    check_equal("number of layers", len(old), len(new))
    for before, after in zip(old, new, strict=True):
        label = f"layer {before.name!r}"
        check_equal(f"class of {label}", type(before), type(after))
        if not precision:
            dtypes = [(x.compute_dtype, x.variable_dtype) for x in (before, after)]
            check_equal(f"dtypes of {label}", *dtypes)
        settings = [settings_of(layer, precision) for layer in (before, after)]
        check_equal(f"settings of {label}", *settings)
    old, new = variables_in_order(source), variables_in_order(target)
    check_equal("number of variables", len(old), len(new))
    for before, after in zip(old, new, strict=True):
        label = f"variable {name_of(before)!r}"
        check_equal(f"name of {label}", _bare_name(before), _bare_name(after))
        check_equal(f"shape of {label}", tuple(before.shape), tuple(after.shape))
        if not (precision and is_float(before)):
            check_equal(f"dtype of {label}", before.dtype, after.dtype)


def check_equal(what: str, expected: Any, received: Any) -> None:
    """Raises ValueError if something in a rebuilt model differs from the original."""
    if isinstance(expected, dict) and isinstance(received, dict):
        keys = sorted(expected.keys() | received.keys())
        differing = [k for k in keys if expected.get(k) != received.get(k)]
        both = (expected, received)
        expected, received = ({k: x.get(k) for k in differing} for x in both)
    if expected != received:
        raise ValueError(f"{what}: {received} in the rebuilt model, not {expected}")


def copy_flags(source: Any, target: Any) -> None:
    """Copies the `trainable` flags of layers, by which tf_keras orders variables."""
    # Outermost first: setting a model's flag sets those of its layers.
    for before, after in zip(layers_of(source), layers_of(target), strict=False):
        if before.trainable != after.trainable:
            after.trainable = before.trainable


def copy_state(source: Any, target: Any) -> None:
    """Copies all state between models of the same architecture."""
    assign_all(variables_in_order(source), variables_in_order(target))
    for before, after in zip(layers_of(source), layers_of(target), strict=True):
        classes = type(before).__mro__
        owners = [next((c for c in classes if h in vars(c)), None) for h in _HOOKS]
        has_own_hooks = not all(map(is_library_class, filter(None, owners)))
        if has_own_hooks or hasattr(before, "finalize_state"):
            # The models may belong to different strategies.
            outside_scopes(_copy_by_hooks, before, after)


def assign_all(sources: list[Any], targets: list[Any]) -> None:
    """Copies values of variables, one at a time through host memory."""
    for before, after in zip(sources, targets, strict=True):
        assign(after, cast_for(host_value(before), after))


def _copy_by_hooks(before: Any, after: Any) -> None:
    """Copies what a layer saves besides plain variables, such as vocabularies."""
    store: dict[str, Any] = {}
    before.save_own_variables(store)
    if store:
        after.load_own_variables({k: host_value(v) for k, v in store.items()})
    if hasattr(before, "save_assets") and hasattr(before, "load_assets"):
        with tempfile.TemporaryDirectory() as folder:
            before.save_assets(folder)
            after.load_assets(folder)


def settings_of(layer: Any, precision: str | None = None) -> Any:
    """Returns a layer's comparable configuration, if any; no dtypes for a precision."""
    is_graph = getattr(layer, "layers", None) and is_library_class(type(layer))
    if is_graph or _configures_itself(type(layer)):
        return None
    try:
        config = layer.get_config()
    except NotImplementedError:
        return None
    free = frozenset({"dtype", "initializer"} if precision else ())
    return _comparable(config, free)


def _configures_itself(cls: type) -> bool:
    """Whether Keras makes a user layer's configuration, as of plain arguments."""
    owner = next(base for base in cls.__mro__ if "get_config" in vars(base))
    if is_library_class(cls) or not is_library_class(owner):
        return False
    return owner in sys.modules[root_of(owner)].Model.__mro__


def _comparable(config: Any, free: frozenset[str]) -> Any:
    """Strips what differs between equal objects: automatic names, seeds, free words."""
    if isinstance(config, dict):
        items = [(str(k), v) for k, v in config.items() if k not in _FREE_KEYS]
        kept = [(k, v) for k, v in items if k.rpartition("_")[2] not in free]
        return {k: _comparable(v, free) for k, v in kept}
    if isinstance(config, list | tuple):
        return [_comparable(item, free) for item in config]
    if isinstance(config, np.ndarray | np.generic):
        return config.tolist()
    if isinstance(config, str) and config.endswith("\n"):
        return "bytecode"  # of a lambda; its encoding may vary
    plain = config is None or isinstance(config, str | int | float | bool)
    return config if plain else type(config).__name__


def variables_in_order(model: Any) -> list[Any]:
    """Returns variables in an order that copies share, even if quantized later."""
    variables = variables_of(model)
    if not any(is_quantized(layer, "float8") for layer in layers_of(model)):
        return variables
    owners: dict[str, int] = {}

    def key(variable: Any) -> tuple[int, str]:
        owner, _, name = name_of(variable).rpartition("/")
        return owners.setdefault(owner, len(owners)), name

    return sorted(variables, key=key)


def _bare_name(variable: Any) -> str:
    last = name_of(variable).rpartition("/")[2].partition(":")[0]
    return re.sub(r"_\d+$", "", last)
