"""What layers compute with the user's own code.

Guarantee: functions that a layer holds count, such as that of a `Lambda` or an
activation, and so does the code of a user's class. Whatever else a layer holds is
described in `described.py`.
"""

import types
from typing import Any

from keras_mgpu_strategy.digests.code import digest_of_code
from keras_mgpu_strategy.digests.packages import is_installed
from keras_mgpu_strategy.models.custom_objects import leaves

_OF_TRAINING = ("_constraint", "_initializer", "_regularizer")


def own_code_of(layer: Any) -> str | None:
    """Returns a digest of a layer's code; None if all of it is Keras' own."""
    functions = _functions_of(layer)
    if not is_installed(type(layer)):
        return digest_of_code([type(layer), functions])
    return digest_of_code(functions) if functions else None


def _functions_of(layer: Any) -> dict[str, Any]:
    """The user's functions that a layer holds."""
    found = {}
    for name, value in vars(layer).items():
        held = [leaf for leaf in leaves(value) if isinstance(leaf, types.FunctionType)]
        own = [leaf for leaf in held if not is_installed(leaf.__code__.co_filename)]
        if own and name != "loss" and not name.endswith(_OF_TRAINING):
            found[name] = own
    return found
