"""Recognises objects of optional packages by the names of their classes.

Guarantee: nothing is imported.
"""

from collections.abc import Callable
from typing import Any


def is_of(package: str, *names: str) -> Callable[[Any], bool]:
    """Returns a test for objects of some classes of a package, or of subclasses.

    Args:
        package: Its top-level module.
        names: Names of the classes; if empty, any class of the package.
    """

    def is_one(x: Any) -> bool:
        theirs = [c for c in type(x).__mro__ if c.__module__.split(".")[0] == package]
        return any(not names or cls.__name__ in names for cls in theirs)

    return is_one
