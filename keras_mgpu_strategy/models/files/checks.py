"""Determines the kind of a saved model, by its content, before anything is loaded.

In safe mode no file is loaded whose configuration contains Python code, or would make
Keras run code that is not its own.
"""

import json
import os
import re
import zipfile
from typing import Any

import h5py
import keras

from keras_mgpu_strategy.models.files.integrity import (
    EXPECTED,
    check_archive,
    check_h5,
    read_configs,
)
from keras_mgpu_strategy.models.files.safety import unsafe_parts

_COMPILE_CONFIGS = ("compile_config", "training_config")
"""Their keys in a `.keras` file and in a legacy `.h5` file."""

_CHECKS = {
    ".keras": ("keras", check_archive),
    ".h5": ("h5", check_h5),
    ".hdf5": ("h5", check_h5),
}


def kind_of(path: str) -> str:
    """Returns "keras", "h5" or "saved_model"; raises ValueError for anything else."""
    if not os.path.exists(path):
        hint = " Of several models, pass a list of paths." if {*"*,"} & {*path} else ""
        raise FileNotFoundError(
            f"There is no model at {path!r}; expected {EXPECTED}. Check the path; "
            f"the working directory is {os.getcwd()!r}.{hint}"
        )
    if os.path.isdir(path):
        names = sorted(os.listdir(path))
        if "saved_model.pb" in names or "saved_model.pbtxt" in names:
            return "saved_model"
        raise ValueError(
            f"Folder {path!r} has no `saved_model.pb`, so it is not a SavedModel; it "
            f"holds {names[:8]}. Expected {EXPECTED}. If the model is in a folder "
            "inside it, give that one."
        )
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
    path: str, kind: str, custom_objects: dict[str, Any] | None
) -> str | None:
    """Raises ValueError for foreign code; returns why compiling is unsafe, or None."""
    config = read_configs(path, kind)
    apart = {key: config.pop(key) for key in _COMPILE_CONFIGS if key in config}
    problem = unsafe_parts(config, custom_objects)
    if problem:
        raise ValueError(f"{path!r} {problem}")
    return unsafe_parts(apart, custom_objects)


def newer_keras(path: str) -> str | None:
    """Returns the Keras that wrote a file if it is newer than the installed one."""
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                version = str(
                    json.loads(archive.read("metadata.json"))["keras_version"]
                )
        except (ValueError, TypeError, KeyError):
            return None
    else:
        with h5py.File(path, "r") as file:
            version = str(file.attrs.get("keras_version", ""))
    return version if _release(version) > _release(keras.__version__) else None


def _release(version: str) -> tuple[int, ...]:
    """(3, 15, 1) for "3.15.1.dev0"."""
    numbers = re.match(r"\d{1,4}(\.\d{1,4})*", version)
    return tuple(map(int, numbers[0].split("."))) if numbers else ()
