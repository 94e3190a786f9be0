"""What the configuration of a saved model would run besides the layers of Keras.

In safe mode, bytecode, other files, and names neither of parts of models in Keras nor
known from the user's program are refused. Keras' own checks differ between versions,
and tf_keras imports and calls whatever a configuration names.
"""

import builtins
import re
import sys
from collections.abc import Iterator
from typing import Any

import keras

_SAID = (
    "holds Python code in the Lambda layers {names}, which would run on this machine.",
    "refers to {names}, which are not parts of models in Keras and would run on this "
    "machine. Pass what is your own as `custom_objects={example}`.",
    "would read other files, or run what is in them, while it is loaded: {names}.",
)
_REMEDY = "Pass `safe_mode=False` if you trust where the file comes from."
_LAMBDA_TYPES = ("function_type", "output_shape_type", "mask_type")
_LAMBDA_PARTS = ("function", "output_shape", "mask")
_FILE_LAYERS = ("TFSMLayer", "TorchModuleWrapper")
_LOOKUPS = ("IndexLookup", "IntegerLookup", "StringLookup", "TextVectorization")

_LIBRARIES = ("keras", "keras_cv", "keras_hub", "keras_nlp", "tf_keras")
# Modules of a library whose functions are parts of models. Functions of others write
# or download files, or turn safe mode off.
_FUNCTIONS = frozenset(
    {"activations", "constraints", "initializers", "losses", "metrics", "ops"}
).union({"optimizers", "quantizers", "random", "regularizers"})
# Layers of tf_keras that wrap functions and classes of TensorFlow -> the key that
# names these.
_TENSORFLOW = {"TFOpLambda": "function", "SlicingOpLambda": "function"}
_TENSORFLOW |= {"ClassMethod": "cls_symbol"}
_TENSORFLOW_PARTS = frozenset(
    {"RaggedTensor", "SparseTensor", "__operators__", "audio", "bitwise", "image"}
).union(
    {"linalg", "math", "nn", "ragged", "random", "sets", "signal", "sparse", "strings"}
)
# Some functions in these modules read or write files, or run code.
_TENSORFLOW_NOT = re.compile(
    r"(^|_)(files?|load|library|print|py|numpy|graph|register|function)(_|$)", re.I
)


def unsafe_parts(config: Any, custom_objects: dict[str, Any] | None) -> str | None:
    """Says, after a file's name, what in its configuration is not safe, if anything."""
    nodes = list(_nodes(config))
    own = custom_objects or {}
    found = (
        {_code(node, layer) for node, layer in nodes},
        {foreign_name(node) for node, _ in nodes if not _is_known(node, own)},
        {_file(node) for node, _ in nodes},
    )
    said = []
    for text, parts in zip(_SAID, found, strict=True):
        names = sorted(part for part in parts if part is not None)
        if names:
            name = names[0].rpartition(".")[2]
            example = f"{{'{name}': {name}}}"
            said.append(text.format(names=names[:8], example=example))
    return " ".join([*said, _REMEDY]) if said else None


def _nodes(config: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Yields every dict, with the name of its layer; recursion would have a limit."""
    waiting: list[tuple[Any, str]] = [(config, "?")]
    while waiting:
        value, name = waiting.pop()
        if isinstance(value, list):
            waiting.extend((item, name) for item in value)
        elif isinstance(value, dict):
            own = value.get("name")
            name = own if isinstance(own, str) else name
            yield value, name
            waiting.extend((item, name) for item in value.values())


def _type_name(node: dict[str, Any]) -> str | None:
    name = node.get("class_name")
    return name.rpartition(">")[2] if isinstance(name, str) else None


def _code(node: dict[str, Any], layer: str) -> str | None:
    # Keras 3 marks bytecode with `__lambda__`; Keras 2 with the function type, and
    # Keras 3 takes a list in place of a function for bytecode of Keras 2.
    is_code = node.get("class_name") == "__lambda__"
    is_code |= "lambda" in [node.get(key) for key in _LAMBDA_TYPES]
    inner = node.get("config")
    if _type_name(node) == "Lambda" and isinstance(inner, dict):
        parts = [inner.get(key) for key in _LAMBDA_PARTS]
        dumps = [x[0] for x in parts if isinstance(x, list) and x]
        is_code |= any(isinstance(dump, str) for dump in dumps)
        layer = str(inner.get("name") or layer)
    return layer if is_code else None


def _is_known(node: dict[str, Any], custom_objects: dict[str, Any]) -> bool:
    name = node.get("registered_name", node.get("class_name"))
    if node.get("class_name") == "function":
        name = node.get("config")
    if not isinstance(name, str):
        return False
    loaded = filter(None, [keras, sys.modules.get("tf_keras")])
    return name in custom_objects or any(
        library.saving.get_registered_object(name, custom_objects) is not None
        for library in loaded
    )


def _file(node: dict[str, Any]) -> str | None:
    kind, inner = _type_name(node), node.get("config")
    if kind in _FILE_LAYERS:
        return kind
    path = inner.get("vocabulary") if isinstance(inner, dict) else None
    is_file = kind in _LOOKUPS and isinstance(path, str)
    return f"{kind}, {path!r:.80}" if is_file else None


def foreign_name(node: dict[str, Any]) -> str | None:
    """What any dict in a configuration names that is not a part of models in Keras."""
    kind, inner, module = _type_name(node), node.get("config"), node.get("module")
    if kind in _TENSORFLOW and isinstance(inner, dict):
        return _foreign_symbol(inner.get(_TENSORFLOW[kind]))
    if kind is None or module is None:
        return None
    module = str(module)
    name = inner if kind == "function" and isinstance(inner, str) else kind
    if kind == "__typespec__":
        name = str(node.get("spec_name"))
        is_spec = name.endswith("Spec") and "." in module
        if is_spec and module.startswith("tensorflow.python."):
            return None
    return None if _is_part(module, name) else f"{module}.{name}"


def _is_part(module: str, name: str) -> bool:
    library, *parts = module.split(".")
    if module == "builtins":  # Keras writes this for some of its own functions, too
        return not hasattr(builtins, name)
    is_class = name[:1].isupper() and "." not in name
    return library in _LIBRARIES and (is_class or bool(_FUNCTIONS.intersection(parts)))


def _foreign_symbol(symbol: Any) -> str | None:
    *parts, name = str(symbol).removeprefix("compat.v1.").split(".")
    is_part = _TENSORFLOW_PARTS.issuperset(parts)
    if parts[:1] == ["keras"]:
        is_part = _FUNCTIONS.union(["backend"]).issuperset(parts[1:2])
    is_safe = is_part and _TENSORFLOW_NOT.search(name) is None
    return None if is_safe else f"tf.{symbol}"
