"""How inputs and outputs are put together."""

from typing import Any


def ways_to_nest(count: int) -> list[str]:
    """Names of the structures that some tensors can be in."""
    if count == 1:
        return ["one", "list", "dict"]
    return ["list", "tuple", "dict", "nested"]


def nested(kind: str, names: list[str], leaves: list[Any]) -> Any:
    """Leaves in a structure: "nested" has a list within a dict."""
    if kind == "one":
        return leaves[0]
    if kind == "list":
        return list(leaves)
    if kind == "tuple":
        return tuple(leaves)
    if kind == "dict":
        return dict(zip(names, leaves, strict=True))
    return {names[0]: leaves[0], "others": list(leaves[1:])}
