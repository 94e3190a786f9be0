"""Saved models from disk, mirrored on every replica.

The file is checked before Keras sees it; every error names the path. With `safe_mode`,
no Python code from a `.keras` or HDF5 file runs. A SavedModel's graph is code itself,
and is not restricted.
"""

import contextlib
import importlib
import os
import re
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import keras
import tensorflow as tf

from keras_mgpu_strategy.models.aside import Aside
from keras_mgpu_strategy.models.files.checks import check_safe, kind_of, newer_keras
from keras_mgpu_strategy.models.layer_outputs import forget_rest
from keras_mgpu_strategy.models.libraries import check_backend
from keras_mgpu_strategy.models.overrides import is_of_hub
from keras_mgpu_strategy.models.replicated import ReplicatedModel
from keras_mgpu_strategy.models.replicating import replicate
from keras_mgpu_strategy.models.saved_model import read_saved_model
from keras_mgpu_strategy.system.messages import Line, cause_of, warn, without_records

# Keras says this of a model that was compiled and never trained: nothing is skipped.
_UNTRAINED_OPTIMIZER = re.compile(r".*\bsaved optimizer has [0-2] variables")
_OWN_COMPILE = "`compile()` was not called as part of model loading"
_NOT_COMPILED = "No training configuration found"
# What Keras 3 and tf_keras say about classes and functions that they do not know.
_UNKNOWN_OBJECT = ("Could not locate", "Unknown ", "not registered", "custom_objects")


def read(
    path: str | os.PathLike[str],
    strategy: tf.distribute.Strategy,
    *,
    custom_objects: dict[str, Any] | None = None,
    safe_mode: bool = True,
    precision: str | None = None,
    outputs: tuple[str, ...] | None = None,
    aside: Aside | None = None,
    kind: str | None = None,
) -> ReplicatedModel:
    """Reads a `.keras` or HDF5 file or a SavedModel folder onto every replica.

    `kind` is what `kind_of` returned, if it was called.
    Raises FileNotFoundError, or ValueError if the model cannot be used; with
    `safe_mode`, also for Python code or unknown names in `.keras` and HDF5 files.
    """
    path = os.fspath(path)
    check_backend(keras)
    kind = kind or kind_of(path)
    if kind == "saved_model":
        if precision:
            raise ValueError(
                f"precision={precision!r} for the SavedModel {path!r}, whose graph has "
                "its dtypes built in. Pass precision=None, or the model as a `.keras` "
                "or `.h5` file."
            )
        return read_saved_model(path, strategy, outputs)
    unsafe = check_safe(path, kind, custom_objects) if safe_mode else None
    options = {"custom_objects": custom_objects, "safe_mode": safe_mode}
    with strategy.scope():
        model = _load(path, options, unsafe)
    if aside is not None:
        aside.give_to(model)
    replicated = replicate(model, strategy, precision, outputs)
    if outputs is not None:
        forget_rest(replicated.model)
    return replicated


def _load(path: str, options: dict[str, Any], unsafe: str | None) -> Any:
    """Loads with Keras 3 or tf_keras; uncompiled if compiling is unsafe or fails."""
    failures: dict[str, Exception] = {}
    for compiled in (False,) if unsafe else (True, False):
        for library in _libraries():
            try:
                model = _load_with(library, path, {**options, "compile": compiled})
            # User code runs here and may raise anything.
            except Exception as error:
                failures.setdefault(library.__name__, error)
                continue
            if not compiled:
                why = failures.get(library.__name__, ValueError(f"The file {unsafe}"))
                warn(
                    f"The compile settings in {path!r} cannot be restored, so the "
                    "model can predict, but needs `compile` before `evaluate` or "
                    "`fit`; losses and metrics of your own can be passed as "
                    f"`custom_objects`. {cause_of(why)}"
                )
            return model
    raise ValueError(_failure(path, failures)) from failures["keras"]


def _libraries() -> Iterator[ModuleType]:
    yield keras
    # Imported only for models of Keras 2. It may be installed and still not work, as
    # version 2.21 under `python -OO`.
    with contextlib.suppress(Exception):
        yield importlib.import_module("tf_keras")


def _load_with(library: ModuleType, path: str, options: dict[str, Any]) -> Any:
    with (
        warnings.catch_warnings(record=True) as said,
        without_records("absl", _NOT_COMPILED),
        without_records("tensorflow", _NOT_COMPILED),
    ):
        warnings.simplefilter("always")
        model = library.models.load_model(path, **options)
    for warning in said:
        text = str(warning.message)
        # A task of KerasHub has been compiled by its constructor.
        is_of_task = _OWN_COMPILE in text and is_of_hub(model, "compile")
        if not (is_of_task or _UNTRAINED_OPTIMIZER.match(text)):
            place = Line(warning.filename, warning.lineno, library.__name__, {})
            place.warn(text, warning.category)
    return model


def _failure(path: str, errors: dict[str, Exception]) -> str:
    causes = [f"{name}: {cause_of(error)}" for name, error in errors.items()]
    advice = []
    newer = newer_keras(path)
    if newer:
        advice.append(
            f"Keras {newer} wrote it, and this is Keras {keras.__version__}: run "
            "`pip install --upgrade keras`, or save the model with this version."
        )
    if any(word in cause for word in _UNKNOWN_OBJECT for cause in causes):
        advice.append(
            "If the model uses classes or functions of your own, pass them as "
            "`custom_objects={'Name': Name}`."
        )
    if "tf_keras" not in errors:
        advice.append(
            "If Keras 2 wrote it, install the extra: "
            "pip install 'keras_mgpu_strategy[legacy]'."
        )
    return "\n".join([f"{path!r} cannot be loaded.", *advice, *causes])
