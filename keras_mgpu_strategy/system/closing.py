"""Closes iterators that may be generators."""

import contextlib
from collections.abc import Iterator
from typing import Any


def close(iterator: Iterator[Any]) -> None:
    """Closes a generator; other iterators have nothing to close."""
    if callable(method := getattr(iterator, "close", None)):
        method()


@contextlib.contextmanager
def closing(iterator: Iterator[Any]) -> Iterator[None]:
    """Closes an iterator at the end of the block, however it ends."""
    try:
        yield
    finally:
        close(iterator)
