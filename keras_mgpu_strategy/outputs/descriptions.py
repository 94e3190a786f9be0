"""What a journal says about the outputs in a file, checked against valid columns.

Guarantee: an output name that was read is one that `columns.py` can make: never a path
that leads out of a folder.
"""

from typing import Any

from keras_mgpu_strategy.outputs.column_names import is_plain, unique
from keras_mgpu_strategy.outputs.strict_json import is_count

NAMES: list[Any] = ["file", [], "name"]
"""Follows the outputs if rows have names."""


def check_described(described: Any) -> None:
    """Checks the description of a file's columns.

    Args:
        described: As `columns.describe` returns it.

    Raises:
        ValueError: It is not one that this package writes.
    """
    if not isinstance(described, list):
        raise ValueError(f"it describes outputs by {described!r:.80}")
    columns = described[:-1] if described[-1:] == [NAMES] else described
    for column in columns:
        if not _is_column(column):
            raise ValueError(f"it describes an output by {column!r:.80}")
    names = [name for name, _, _ in columns]
    if unique(names) != names:
        raise ValueError("it describes several outputs of one name")


def _is_column(column: Any) -> bool:
    if not isinstance(column, list) or len(column) != 3:
        return False
    name, shape, dtype = column
    is_shape = isinstance(shape, list) and all(map(is_count, shape))
    return is_shape and is_plain(name) and isinstance(dtype, str)
