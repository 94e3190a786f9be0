"""Values that travel with what is needed to import their classes."""

import dataclasses
import importlib
import os
import sys
from typing import Any

import numpy as np

from keras_mgpu_strategy.system import environment
from keras_mgpu_strategy.system.extras import import_extra


@dataclasses.dataclass(frozen=True)
class Packed:
    """A value for another process, which may know fewer modules.

    Args:
        content: The value, pickled as Ray does: classes and functions of the user's
            program with their code, those of modules by name.
        folders: Where this process finds modules.
    """

    content: bytes
    folders: tuple[str, ...]

    def unpack(self) -> Any:
        """Returns the value.

        Raises:
            ImportError: One of the user's modules is not on this machine.
        """
        sys.path.extend(
            path
            for path in self.folders
            if path not in sys.path and os.path.exists(path)
        )
        try:
            return pickles().loads(self.content)
        except ImportError as error:
            note = (
                "The model needs this module in every process. Install it on every "
                "machine, or call ray.init(runtime_env={'working_dir': ...}) before."
            )
            error.add_note(note)
            raise


def pack(value: Any) -> Packed:
    """Packs a value, as this process sees it."""
    folders = tuple(os.path.abspath(path) for path in sys.path)
    return Packed(pickles().dumps(value), folders)


def can_pickle(value: Any) -> bool:
    """Whether a value can be packed, and unpacked again."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        return True
    try:
        pickles().loads(pickles().dumps(value))
    except Exception:  # noqa: BLE001 - code of the value's class runs here
        return False
    return True


def pickles() -> Any:
    """Ray's own pickling."""
    environment.prepare_ray()
    import_extra("ray", "ray", 'engine="ray"')
    return importlib.import_module("ray.cloudpickle")
