"""Which version of Keras wrote a file.

Keras reads what older versions wrote. Of an argument that only a newer version knows,
it only says that it is unknown.
"""

import json
import re
import zipfile

import h5py
import keras

_METADATA = "metadata.json"


def newer_keras(path: str) -> str | None:
    """Returns the Keras that wrote a model, if it is newer than the one installed.

    Args:
        path: A `.keras`, `.h5` or `.hdf5` file that `kind_of` has checked.

    Returns:
        The version; None if it is not newer, or if the file does not say.
    """
    version = _in_archive(path) if zipfile.is_zipfile(path) else _in_hdf5(path)
    return version if _release(version) > _release(keras.__version__) else None


def _in_archive(path: str) -> str:
    with zipfile.ZipFile(path) as archive:
        if _METADATA not in archive.namelist():
            return ""
        content = archive.read(_METADATA)
    try:
        return str(json.loads(content)["keras_version"])
    except (ValueError, TypeError, KeyError):
        return ""


def _in_hdf5(path: str) -> str:
    with h5py.File(path, "r") as file:
        return str(file.attrs.get("keras_version", ""))


def _release(version: str) -> tuple[int, ...]:
    """(3, 15, 1) for "3.15.1.dev0"."""
    numbers = re.match(r"\d{1,4}(\.\d{1,4})*", version)
    return tuple(map(int, numbers[0].split("."))) if numbers else ()
