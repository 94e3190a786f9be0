"""Names in the configuration of a saved model, and which of them are Keras' own parts.

Newer versions of Keras refuse some of the others; older ones, and tf_keras, import
and call whatever a configuration names.
"""

import builtins
import re
from typing import Any

_LIBRARIES = ("keras", "keras_cv", "keras_hub", "keras_nlp", "tf_keras")
# Modules of a library whose functions are parts of models. Functions of others write
# or download files, or turn safe mode off.
_FUNCTIONS = frozenset(
    {
        "activations",
        "constraints",
        "initializers",
        "losses",
        "metrics",
        "ops",
        "optimizers",
        "quantizers",
        "random",
        "regularizers",
    }
)
# Layers of tf_keras that wrap functions and classes of TensorFlow -> the key that
# names these.
_TENSORFLOW = {"TFOpLambda": "function", "SlicingOpLambda": "function"}
_TENSORFLOW |= {"ClassMethod": "cls_symbol"}
_TENSORFLOW_PARTS = frozenset(
    {
        "RaggedTensor",
        "SparseTensor",
        "__operators__",
        "audio",
        "bitwise",
        "image",
        "linalg",
        "math",
        "nn",
        "ragged",
        "random",
        "sets",
        "signal",
        "sparse",
        "strings",
    }
)
_COMPATIBLE = ["compat", "v1"]
# Some functions in these modules read or write files, or run code.
_TENSORFLOW_NOT = re.compile(
    r"(^|_)(files?|load|library|print|py|numpy|graph|register|function)(_|$)", re.I
)


def type_name(config: dict[str, Any]) -> str | None:
    """The name of the class that a dict describes, without its package."""
    name = config.get("class_name")
    return name.rpartition(">")[2] if isinstance(name, str) else None


def foreign_name(config: dict[str, Any]) -> str | None:
    """What a dict names that is not a part of models in Keras; None if nothing.

    Args:
        config: Any dict in a configuration, whether it describes an object or not.
    """
    kind = type_name(config)
    if kind is None:
        return None
    inner = config.get("config")
    if kind in _TENSORFLOW and isinstance(inner, dict):
        return _foreign_symbol(inner.get(_TENSORFLOW[kind]))
    name = inner if kind == "function" and isinstance(inner, str) else kind
    module = config.get("module")
    if kind == "__typespec__":
        name = config.get("spec_name")
        is_spec = str(name).endswith("Spec") and "." in str(module)
        if is_spec and str(module).startswith("tensorflow.python."):
            return None
    if module is None:
        return None
    return None if _is_part(str(module), str(name)) else f"{module}.{name}"


def _is_part(module: str, name: str) -> bool:
    """Whether a name in a module of a library is a class, or a function of models."""
    library, *parts = module.split(".")
    if module == "builtins":  # Keras writes this for some of its own functions, too
        return not hasattr(builtins, name)
    if library not in _LIBRARIES:
        return False
    is_class = name[:1].isupper() and "." not in name
    return is_class or bool(_FUNCTIONS.intersection(parts))


def _foreign_symbol(symbol: Any) -> str | None:
    *parts, name = str(symbol).split(".")
    if parts[:2] == _COMPATIBLE:
        parts = parts[2:]
    is_part = _TENSORFLOW_PARTS.issuperset(parts)
    if parts[:1] == ["keras"]:
        is_part = _FUNCTIONS.union(["backend"]).issuperset(parts[1:2])
    if is_part and _TENSORFLOW_NOT.search(name) is None:
        return None
    return f"tf.{symbol}"
