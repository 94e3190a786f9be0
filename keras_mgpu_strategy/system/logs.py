"""Keeps other packages' records that mean nothing to users out of their logs."""

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def without_records(logger: str, message: str) -> Iterator[None]:
    """Drops records of a logger that contain some words.

    Args:
        logger: Its name, such as "absl" or "tensorflow".
        message: The words.
    """

    def keeps(record: logging.LogRecord) -> bool:
        return message not in record.getMessage()

    target = logging.getLogger(logger)
    target.addFilter(keeps)
    try:
        yield
    finally:
        target.removeFilter(keeps)
