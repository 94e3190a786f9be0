"""Determines the kind of a saved model before anything is loaded.

Guarantees:

* The content is checked, not only the name: a text file called `model.keras`, a
  truncated archive and a weights-only file are each recognised.
* No file is loaded that refers to other files, or that would take up much more memory
  than its size (`archives.py`, `hdf5.py`).
* In safe mode no file is loaded whose configuration contains Python code, or would
  make Keras run code that is not its own (`safety.py`).
"""

import json
import os
from typing import Any

from keras_mgpu_strategy.models.files import hdf5
from keras_mgpu_strategy.models.files.archives import (
    check_archive,
    read_config,
    weights_in,
)
from keras_mgpu_strategy.models.files.damage import EXPECTED, damaged
from keras_mgpu_strategy.models.files.safety import unsafe_parts

_COMPILE_CONFIGS = ("compile_config", "training_config")
"""Their keys in a `.keras` file and in a legacy `.h5` file."""


def kind_of(path: str) -> str:
    """Returns "keras", "h5" or "saved_model".

    Raises:
        FileNotFoundError: If there is nothing at `path`.
        ValueError: If it is something else, or a damaged file.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"There is no model at {path!r}; expected {EXPECTED}. Check the path; "
            f"the working directory is {os.getcwd()!r}."
        )
    if os.path.isdir(path):
        return _kind_of_folder(path)
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in _CHECKS:
        raise ValueError(
            f"{path!r} has the suffix {suffix!r}; expected {EXPECTED}. Rename the "
            "file if it is one of these."
        )
    kind, check = _CHECKS[suffix]
    check(path)
    return kind


def check_safe(
    path: str, kind: str, custom_objects: dict[str, Any] | None = None
) -> str | None:
    """Raises ValueError for a file that would run code that is not Keras' own.

    Args:
        path: The file.
        kind: As returned by `kind_of`.
        custom_objects: The user's own classes and functions that it may refer to.

    Returns:
        Why its compile settings, which a model can do without, must not be restored;
        None if they may be.
    """
    config = _configs(path, kind)
    apart = {key: config.pop(key) for key in _COMPILE_CONFIGS if key in config}
    problem = unsafe_parts(config, custom_objects)
    if problem:
        raise ValueError(f"{path!r} {problem}")
    return unsafe_parts(apart, custom_objects)


def _kind_of_folder(path: str) -> str:
    if os.path.exists(os.path.join(path, "saved_model.pb")) or os.path.exists(
        os.path.join(path, "saved_model.pbtxt")
    ):
        return "saved_model"
    raise ValueError(
        f"Folder {path!r} has no `saved_model.pb`, so it is no SavedModel; it holds "
        f"{sorted(os.listdir(path))[:8]}. Expected {EXPECTED}. If the model is in a "
        "folder inside it, give that one."
    )


def _check_keras(path: str) -> None:
    check_archive(path)
    with open(path, "rb") as file:
        weights = weights_in(file, path)
        if weights is not None:
            hdf5.check_tree(weights, path)


_CHECKS = {
    ".keras": ("keras", _check_keras),
    ".h5": ("h5", hdf5.check_model_file),
    ".hdf5": ("h5", hdf5.check_model_file),
}


def _configs(path: str, kind: str) -> dict[str, Any]:
    """The configuration of the model, with that of its training."""
    if kind == "h5":
        return hdf5.read_configs(path)
    try:
        config = json.loads(read_config(path))
    except (ValueError, RecursionError) as error:
        raise damaged(path) from error
    if not isinstance(config, dict):
        raise damaged(path)
    return config
