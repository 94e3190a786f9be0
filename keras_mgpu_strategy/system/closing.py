"""Iterators that may be generators, and are then to be closed."""

import contextlib
from collections.abc import Iterator
from typing import Any


def close(iterator: Iterator[Any]) -> None:
    """Closes a generator; what is no generator has nothing to close."""
    method = getattr(iterator, "close", None)
    if callable(method):
        method()


@contextlib.contextmanager
def closing(iterator: Iterator[Any]) -> Iterator[None]:
    """Closes an iterator at the end, however that comes."""
    try:
        yield
    finally:
        close(iterator)
