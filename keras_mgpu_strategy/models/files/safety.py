"""What the configuration of a saved model would run besides the layers of Keras.

Guarantee, whatever the version of Keras or tf_keras that loads it afterwards: in safe
mode no configuration is loaded that holds bytecode, that names what is neither part
of a model in Keras nor known from the user's own program, or that names other files.

Keras' own checks differ between versions, and tf_keras imports any module that a
configuration names.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras

from keras_mgpu_strategy.models.files.references import foreign_name, type_name

CODE, FOREIGN, FILES = "code", "foreign", "files"
_SAID = {
    CODE: "holds Python code in the Lambda layers {names}, which would run on this "
    "machine.",
    FOREIGN: "refers to {names}, which Keras has not as parts of models and which "
    "would run on this machine. Pass what is your own as `custom_objects={example}`.",
    FILES: "would read other files, or run what is in them, while it is loaded: "
    "{names}.",
}
_REMEDY = "Pass `safe_mode=False` if you trust where the file comes from."
_LAMBDA_TYPES = ("function_type", "output_shape_type", "mask_type")
_LAMBDA_PARTS = ("function", "output_shape", "mask")
_FILE_LAYERS = ("TFSMLayer", "TorchModuleWrapper")
_LOOKUPS = ("IndexLookup", "IntegerLookup", "StringLookup", "TextVectorization")


class _Node(NamedTuple):
    """A dict in a configuration.

    Args:
        config: The dict.
        name: Name of the layer that it is in.
    """

    config: dict[str, Any]
    name: str


def unsafe_parts(config: Any, custom_objects: dict[str, Any] | None) -> str | None:
    """Says what in a configuration is not safe to load.

    Args:
        config: What `json.loads` returned.
        custom_objects: What the user passes for it.

    Returns:
        The text of the message after the name of the file; None if it is safe.
    """
    found: dict[str, set[str]] = {kind: set() for kind in _SAID}
    for node in _nodes(config):
        for kind, rule in _RULES:
            name = rule(node, custom_objects or {})
            if name is not None:
                found[kind].add(name)
    said = [_sentence(kind, sorted(names)) for kind, names in found.items() if names]
    return " ".join([*said, _REMEDY]) if said else None


def _sentence(kind: str, names: list[str]) -> str:
    name = names[0].rpartition(".")[2]
    return _SAID[kind].format(names=names[:8], example=f"{{'{name}': {name}}}")


def _nodes(config: Any) -> Iterator[_Node]:
    """Yields every dict at any depth; without recursion, which has a limit."""
    waiting: list[tuple[Any, str]] = [(config, "?")]
    while waiting:
        value, name = waiting.pop()
        if isinstance(value, list):
            waiting.extend((item, name) for item in value)
        elif isinstance(value, dict):
            own = value.get("name")
            name = own if isinstance(own, str) else name
            yield _Node(value, name)
            waiting.extend((item, name) for item in value.values())


def _code(node: _Node, custom_objects: dict[str, Any]) -> str | None:
    del custom_objects
    # Keras 3 marks bytecode with `__lambda__`; Keras 2 with the function type, and
    # Keras 3 takes a list in place of a function for bytecode of Keras 2.
    is_code = node.config.get("class_name") == "__lambda__"
    is_code |= "lambda" in [node.config.get(key) for key in _LAMBDA_TYPES]
    inner = node.config.get("config")
    if type_name(node.config) == "Lambda" and isinstance(inner, dict):
        is_code |= any(_is_dump(inner.get(key)) for key in _LAMBDA_PARTS)
        name = inner.get("name")
        return str(name or node.name) if is_code else None
    return node.name if is_code else None


def _is_dump(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], str)


def _foreign(node: _Node, custom_objects: dict[str, Any]) -> str | None:
    config = node.config
    name = config.get("registered_name", config.get("class_name"))
    if config.get("class_name") == "function":
        name = config.get("config")
    if isinstance(name, str) and _is_known(name, custom_objects):
        return None
    return foreign_name(config)


def _is_known(name: str, custom_objects: dict[str, Any]) -> bool:
    """Whether the user's program has registered something under this name."""
    if name in custom_objects:
        return True
    loaded = [keras, sys.modules.get("tf_keras")]
    return any(
        library is not None
        and library.saving.get_registered_object(name, custom_objects) is not None
        for library in loaded
    )


def _files(node: _Node, custom_objects: dict[str, Any]) -> str | None:
    del custom_objects
    kind, inner = type_name(node.config), node.config.get("config")
    if kind in _FILE_LAYERS:
        return kind
    if kind in _LOOKUPS and isinstance(inner, dict):
        path = inner.get("vocabulary")
        return f"{kind}, {path!r:.80}" if isinstance(path, str) else None
    return None


_RULES: tuple[tuple[str, Callable[[_Node, dict[str, Any]], str | None]], ...] = (
    (CODE, _code),
    (FOREIGN, _foreign),
    (FILES, _files),
)
