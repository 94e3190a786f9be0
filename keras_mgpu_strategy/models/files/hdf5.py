"""HDF5 files of models, checked before Keras reads them.

Guarantee, whatever the version of Keras: such a file refers to no other file, and no
array in it claims to be far larger than what it stores.
"""

import json
import math
from typing import Any

import h5py

from keras_mgpu_strategy.models.files.damage import damaged, foreign, hostile

_CONFIGS = ("model_config", "training_config")
# The limits of Keras since 3.13.
_FREE_BYTES, _MOST_RATIO = 2**32, 1000


def check_model_file(path: str) -> None:
    """Checks a legacy `.h5` file.

    Raises:
        ValueError: If it is not HDF5, damaged, weights-only, or refers to other files.
    """
    if not h5py.is_hdf5(path):
        raise foreign(path, "an HDF5 file")
    check_tree(path, path)
    with h5py.File(path, "r") as file:
        if "model_config" in file.attrs:
            return
    raise ValueError(
        f"{path!r} is an HDF5 file without a model configuration, maybe weights "
        "alone. Expected a whole model: write it with `model.save('model.keras')`, "
        "or build the model inside `mgpu.scope()` and call `model.load_weights`."
    )


def check_tree(file: Any, path: str) -> None:
    """Checks everything that an HDF5 file holds.

    Args:
        file: The file, or its path.
        path: Named in errors.

    Raises:
        ValueError: If it is damaged, refers to other files, or claims to be huge.
    """
    try:
        with h5py.File(file, "r") as opened:
            problem = _problem_in(opened)
    except Exception as error:  # damage raises errors of many types
        raise damaged(path) from error
    if problem:
        raise hostile(path, problem)


def read_configs(path: str) -> dict[str, Any]:
    """Returns the configurations of the model and of its training.

    Raises:
        ValueError: If one is not JSON.
    """
    with h5py.File(path, "r") as file:
        texts = {name: file.attrs[name] for name in _CONFIGS if name in file.attrs}
    return {name: _parsed(path, text) for name, text in texts.items()}


def _parsed(path: str, text: Any) -> Any:
    try:
        # Early versions of Keras wrote bytes.
        return json.loads(text.decode() if isinstance(text, bytes) else str(text))
    except (ValueError, RecursionError) as error:
        raise damaged(path) from error


def _problem_in(file: Any) -> str | None:
    """What is wrong with the groups and arrays of a file, each checked once."""
    groups, seen = [file["/"]], {_address(file["/"])}
    while groups:
        group = groups.pop()
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.SoftLink):
                continue  # leads to what another link reaches, or nowhere
            if not isinstance(link, h5py.HardLink):
                return f"links to another file at {name!r}"
            node = group[name]
            if isinstance(node, h5py.Group) and _address(node) not in seen:
                seen.add(_address(node))
                groups.append(node)
            if isinstance(node, h5py.Dataset) and (problem := _problem_of(node)):
                return problem
    return None


def _problem_of(array: Any) -> str | None:
    if array.external or array.is_virtual:
        return f"keeps the values of {array.name!r} in other files"
    claimed = math.prod(array.shape or ()) * array.dtype.itemsize
    stored = array.id.get_storage_size()
    if claimed > max(_FREE_BYTES, _MOST_RATIO * stored):
        return f"holds {stored} bytes for {array.name!r}, which claims {claimed}"
    return None


def _address(group: Any) -> int:
    return h5py.h5o.get_info(group.id).addr  # pyright: ignore[reportAttributeAccessIssue]
