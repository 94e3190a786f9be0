"""JSON that was written here, read back strictly.

UTF-8, each key once in its object, no NaN or infinity; anything else, such as too deep
nesting, is a `ValueError` that says what is wrong.
"""

import json
from typing import Any, NoReturn


def parse(content: bytes) -> Any:
    """Returns the value of a JSON text."""
    try:
        return json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def is_count(value: Any) -> bool:
    """Whether a value is an integer from 0 to the most a file can have of anything."""
    return type(value) is int and 0 <= value < 2**63


def has_keys(value: Any, keys: set[str]) -> bool:
    """Whether a value is an object with exactly these keys."""
    return isinstance(value, dict) and value.keys() == keys


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise ValueError(f"it has the key {name!r:.40} twice")
        result[name] = value
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is not a number in JSON")
