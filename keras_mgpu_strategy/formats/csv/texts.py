"""Columns of Arrow as the texts of CSV cells; a null is an empty cell.

Dates and times are as in ISO 8601, in their own zone, with as many digits of a second
as their type has. Decimals are exact; floats have the fewest digits that read back.
"""

from collections.abc import Callable
from typing import Any

from keras_mgpu_strategy.system.extras import import_extra


def check_types(schema: Any) -> None:
    """Refuses columns whose values are not one text a row."""
    for field in schema:
        if _writer_of(field.type) is None:
            raise ValueError(
                f"A .csv output cannot hold the kept column {field.name!r} of type "
                f"{field.type}. Expected numbers, bools, strings, dates or times. Give "
                "a .parquet output, or leave the column out of keep."
            )


def check_texts(table: Any, first_row: int) -> None:
    """Refuses texts with the character NUL, at which many readers truncate."""
    import pyarrow.types as types

    pc = import_extra("pyarrow.compute", "parquet", "keep=")
    for name, column in zip(table.schema.names, table.columns, strict=True):
        if not types.is_string(column.type) and not types.is_large_string(column.type):
            continue
        index = pc.index(pc.match_substring(column, "\0"), True).as_py()
        if index >= 0:
            raise ValueError(
                f"A .csv output cannot hold {column[index].as_py()!r:.60}, row "
                f"{first_row + index} of the kept column {name!r}: it has the "
                "character NUL. Give a .parquet output, or leave the column out of "
                "keep."
            )


def texts_of(column: Any) -> list[str]:
    """Returns a cell for each row of a column, a ChunkedArray."""
    write = _writer_of(column.type)
    assert write is not None, "check_types comes first"
    return ["" if text is None else text for text in write(column)]


def _writer_of(arrow_type: Any) -> Callable[[Any], list[str | None]] | None:
    import pyarrow.types as types

    for kinds, write in _WRITERS:
        if any(getattr(types, f"is_{kind}")(arrow_type) for kind in kinds.split()):
            return write
    return None


def _plain(column: Any) -> list[str | None]:
    return column.cast("string").to_pylist()


def _floats(column: Any) -> list[str | None]:
    texts = column.fill_null(0).to_numpy().astype(str).tolist()
    nulls = column.is_null().to_numpy().tolist()
    return [None if null else t for t, null in zip(texts, nulls, strict=True)]


def _decimals(column: Any) -> list[str | None]:
    return [None if v is None else format(v, "f") for v in column.to_pylist()]


def _timestamps(column: Any) -> list[str | None]:
    pc = import_extra("pyarrow.compute", "parquet", "keep=")

    offset = "" if column.type.tz is None else "%z"
    texts = pc.strftime(column, format=f"%Y-%m-%dT%H:%M:%S{offset}")
    if offset:  # +0100 -> +01:00
        pattern, with_colon = r"([-+]\d\d)(\d\d)$", r"\1:\2"
        texts = pc.replace_substring_regex(
            texts, pattern=pattern, replacement=with_colon
        )
    return texts.to_pylist()


_WRITERS = (
    ("floating", _floats),
    ("decimal", _decimals),
    ("timestamp", _timestamps),
    ("integer boolean string large_string null date time", _plain),
)
