"""Objects of packages that need not be installed, known by the names of their classes.

Guarantee: nothing is imported.
"""

from collections.abc import Callable
from typing import Any


def is_of(package: str, *names: str) -> Callable[[Any], bool]:
    """Returns what tells objects of some classes of a package, and of their subclasses.

    Args:
        package: Its outermost module.
        names: Of the classes; any class of the package without them.
    """

    def is_one(x: Any) -> bool:
        theirs = [c for c in type(x).__mro__ if c.__module__.split(".")[0] == package]
        return any(not names or cls.__name__ in names for cls in theirs)

    return is_one
