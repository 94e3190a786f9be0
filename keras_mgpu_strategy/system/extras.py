"""Packages that only some uses need, each installed by an extra of this one."""

import importlib
from typing import Any


def import_extra(module: str, extra: str, use: str, otherwise: str = "") -> Any:
    """Imports a module when it is used, or says how to install it.

    Args:
        module: Its full name.
        extra: The extra that installs its package.
        use: What needs it, as the beginning of a sentence.
        otherwise: What to do without it, as a sentence.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        text = (
            f"{use} needs the package {module.partition('.')[0]}, which cannot be "
            f"imported ({error}). "
            f'Run `pip install "keras_mgpu_strategy[{extra}]"`. {otherwise}'
        )
        raise ImportError(text.rstrip()) from error
