"""Packages that only some uses need, each installed by an extra of this one."""

import importlib
from typing import Any


def import_extra(module: str, extra: str, use: str) -> Any:
    """Imports a module, or says which `extra` installs it; `use` begins a sentence."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{use} needs the package {module.partition('.')[0]}, which cannot be "
            f"imported ({error}). "
            f'Run `pip install "keras_mgpu_strategy[{extra}]"`.'
        ) from error
