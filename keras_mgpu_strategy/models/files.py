"""What kind of saved model a path is, told before anything is loaded.

Guarantees:

* The content is looked at, not only the name: a text file called `model.keras`, a
  cut archive and a file of weights alone are each told apart.
* In safe mode no file is loaded whose configuration carries Python code.
"""

import json
import os
import zipfile
from typing import Any

import h5py

_EXPECTED = "a `.keras` file, a legacy `.h5` or `.hdf5` file, or a SavedModel folder"


def kind_of(path: str) -> str:
    """Returns "keras", "h5" or "saved_model".

    Raises:
        FileNotFoundError: If there is nothing at `path`.
        ValueError: If there is something else, or a damaged file.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"There is no model at {path!r}; expected {_EXPECTED}. Check the path; "
            f"the working directory is {os.getcwd()!r}."
        )
    if os.path.isdir(path):
        return _kind_of_folder(path)
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in _CHECKS:
        raise ValueError(
            f"{path!r} has the suffix {suffix!r}; expected {_EXPECTED}. Rename the "
            "file if it is one of these."
        )
    kind, check = _CHECKS[suffix]
    check(path)
    return kind


def check_safe(path: str, kind: str) -> None:
    """Refuses a file with Lambda layers that hold Python code (a ValueError).

    Keras checks `.keras` files only, and not the same way in every version.
    """
    names = sorted(set(_lambdas(_config(path, kind))))
    if names:
        raise ValueError(
            f"{path!r} holds Python code in the Lambda layers {names}, which would run "
            "on this machine. Pass `safe_mode=False` if you trust where the file comes "
            "from."
        )


def _kind_of_folder(path: str) -> str:
    if os.path.exists(os.path.join(path, "saved_model.pb")) or os.path.exists(
        os.path.join(path, "saved_model.pbtxt")
    ):
        return "saved_model"
    raise ValueError(
        f"Folder {path!r} has no `saved_model.pb`, so it is no SavedModel; it holds "
        f"{sorted(os.listdir(path))[:8]}. Expected {_EXPECTED}. If the model is in a "
        "folder inside it, give that one."
    )


def _check_keras(path: str) -> None:
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            is_cut = file.read(2) == b"PK"
        raise _damaged(path) if is_cut else _foreign(path, "a `.keras` file")
    with zipfile.ZipFile(path) as archive:
        if "config.json" not in archive.namelist():
            raise _foreign(path, "a `.keras` file")
        try:
            corrupt = archive.testzip()
        except Exception as error:
            raise _damaged(path) from error
    if corrupt:
        raise _damaged(path)


def _check_h5(path: str) -> None:
    if not h5py.is_hdf5(path):
        raise _foreign(path, "an HDF5 file")
    try:
        with h5py.File(path, "r") as file:
            has_model = "model_config" in file.attrs
    except OSError as error:
        raise _damaged(path) from error
    if not has_model:
        raise ValueError(
            f"{path!r} is an HDF5 file without a model configuration, maybe weights "
            "alone. Expected a whole model: write it with `model.save('model.keras')`, "
            "or build the model inside `mgpu.scope()` and call `model.load_weights`."
        )


_CHECKS = {
    ".keras": ("keras", _check_keras),
    ".h5": ("h5", _check_h5),
    ".hdf5": ("h5", _check_h5),
}


def _damaged(path: str) -> ValueError:
    return ValueError(
        f"{path!r} is truncated or damaged ({os.path.getsize(path)} bytes). Copy or "
        "save the model again."
    )


def _foreign(path: str, expected: str) -> ValueError:
    return ValueError(
        f"{path!r} is not {expected}, in spite of its name. Expected {_EXPECTED}, as "
        "written by `model.save('model.keras')`."
    )


def _config(path: str, kind: str) -> Any:
    if kind == "keras":
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    with h5py.File(path, "r") as file:
        return json.loads(str(file.attrs["model_config"]))


def _lambdas(node: Any, name: str = "?") -> list[str]:
    """Returns names of the layers whose configuration carries bytecode."""
    if isinstance(node, list):
        return [found for item in node for found in _lambdas(item, name)]
    if not isinstance(node, dict):
        return []
    name = node["name"] if isinstance(node.get("name"), str) else name
    # Keras 3 marks bytecode with `__lambda__`; Keras 2 with the type of function.
    is_code = node.get("class_name") == "__lambda__" or "lambda" in (
        node.get("function_type"),
        node.get("output_shape_type"),
        node.get("mask_type"),
    )
    found = [name] if is_code else []
    return found + [f for item in node.values() for f in _lambdas(item, name)]
