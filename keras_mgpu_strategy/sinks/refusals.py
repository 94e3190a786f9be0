"""What a kind of file cannot hold, said before anything is computed."""

from keras_mgpu_strategy.sinks.interface import Layout
from keras_mgpu_strategy.sinks.rows import Rows, stored_columns

_KINDS = {
    "bool": "b",
    "integers": "iu",
    "floats": "f",
    "complex numbers": "c",
    "strings of fixed width": "SU",
}


def check_kinds(layout: Layout, suffix: str, kinds: str) -> None:
    """Checks that a kind of file holds the dtypes of all columns.

    Args:
        layout: What the file is to hold.
        suffix: Of the kind of file.
        kinds: Those it holds, as characters of `numpy.dtype.kind`.

    Raises:
        ValueError: It does not.
    """
    for column in stored_columns(layout):
        if column.dtype.kind not in kinds:
            raise ValueError(
                f"A {suffix} output cannot hold output {column.name!r} of dtype "
                f"{column.dtype}. Expected {_named(kinds)}. Cast this output in the "
                "model, leave it out, or give another kind of file."
            )


def _named(kinds: str) -> str:
    known = [name for name, some in _KINDS.items() if set(some) & set(kinds)]
    return f"{', '.join(known[:-1])} or {known[-1]}"


def check_widths(layout: Layout, suffix: str) -> None:
    """Checks that no column holds rows without a value, as of shape (0,)."""
    for column in layout.columns:
        if 0 in column.row_shape:
            raise ValueError(
                f"A {suffix} output cannot hold output {column.name!r}, whose rows of "
                f"shape {column.row_shape} hold no values. Leave it out of the model."
            )


def refuse_missing(layout: Layout, rows: Rows, suffix: str) -> None:
    """Refuses missing rows of columns whose type has no NaN.

    Raises:
        ValueError: There is such a row.
    """
    if rows.missing is None:
        return
    for column in stored_columns(layout):
        if column.dtype.kind not in "fc":
            raise ValueError(
                f"Row {rows.start + int(rows.missing.argmax())} could not be read, and "
                f"{column.dtype} values, as output {column.name!r} has, cannot be "
                f"marked as missing in a {suffix} output. Give a .parquet or .csv "
                "output, which leaves them empty."
            )
