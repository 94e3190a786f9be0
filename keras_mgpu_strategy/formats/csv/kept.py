"""Columns of a CSV file that are kept beside the results, typed by its first rows.

Integers and floats are numbers only as they would be written: 007 and +1 are text, and
text is kept as it is. What pandas takes for a missing value is null. A dtype, converter
or date format of `read_options` counts.
"""

from collections.abc import Sequence
from typing import Any

from keras_mgpu_strategy.formats.choosing import check_known
from keras_mgpu_strategy.formats.csv.table import CsvTable
from keras_mgpu_strategy.formats.csv.values import Numbers
from keras_mgpu_strategy.sources.arrow_values import value_type, values_of
from keras_mgpu_strategy.sources.row_errors import Fail, failing
from keras_mgpu_strategy.system.extras import import_extra

_PATTERNS = {
    "bool": "^(true|false|True|False|TRUE|FALSE)$",
    "int64": "^(0|-?[1-9][0-9]*)$",
    "double": r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$",
}
_LONG_INTEGER = "^-?[0-9]{16,}$"
"""May have no float of its own."""


class KeptCsvColumns:
    """The kept columns of a file; `schema` has them in the order of `names`."""

    def __init__(self, table: CsvTable, names: Sequence[str]) -> None:
        check_known(names, table.layout.names, f"{table.path}, keep or labels")
        self._path, self._numbers, self.schema = table.path, table.numbers, None
        self.texts = [name for name in names if not table.is_typed(name)]
        if names:
            import pyarrow as pa

            rows = table.first_rows(self.texts)
            self.schema = pa.schema([(name, self._type(rows, name)) for name in names])

    def read(self, piece: Any, first: int) -> Any:
        """Returns the columns of some rows; BadRow for a value of another type."""
        import pyarrow as pa

        if self.schema is None:
            return None
        arrays = []
        for field in self.schema:
            where = f"{self._path}, column {field.name!r}"
            values = pa.array(piece[field.name], from_pandas=True)
            if field.name in self.texts:
                values = self._parsed(values, field, failing(where, first))
            arrays.append(values_of(values, field.type))
        return pa.Table.from_arrays(arrays, schema=self.schema)

    def _type(self, rows: Any, name: str) -> Any:
        """The type of a column by its first rows."""
        import pyarrow as pa

        values = pa.array(rows[name], from_pandas=True)
        if name in self.texts and values.null_count < len(values):
            for kind in (pa.bool_(), pa.int64(), pa.float64()):
                if _first_unfit(values, kind, self._numbers) is None:
                    return kind
        is_text = name in self.texts or pa.types.is_large_string(values.type)
        return pa.string() if is_text else value_type(values.type)

    def _parsed(self, values: Any, field: Any, fail: Fail) -> Any:
        if str(field.type) not in _PATTERNS:
            return values
        bad = _first_unfit(values, field.type, self._numbers)
        if bad is not None:
            fail(
                bad,
                f"holds {values[bad].as_py()!r}, which cannot be kept as {field.type}, "
                "as the first rows are. Keep the column as text: "
                f"read_options={{'dtype': {{{field.name!r}: 'str'}}}}.",
            )
        return _numerals(values, self._numbers).cast(field.type)


def _first_unfit(values: Any, kind: Any, numbers: Numbers) -> int | None:
    """The index of the first text that is not written as values of a type are."""
    import pyarrow as pa

    pc = import_extra("pyarrow.compute", "parquet", "keep=")

    texts = _numerals(values, numbers)
    fits = pc.match_substring_regex(texts, _PATTERNS[str(kind)])
    if kind == pa.float64():
        long = pc.match_substring_regex(texts, _LONG_INTEGER)
        fits = pc.and_not(fits, long)
    index = pc.index(fits, False).as_py()
    if index >= 0:
        return index
    try:
        texts.cast(kind)
    except pa.ArrowInvalid:  # an integer beyond those of 64 bits
        whole = [
            text is None or -(2**63) <= int(text) < 2**63 for text in texts.to_pylist()
        ]
        return whole.index(False)
    return None


def _numerals(values: Any, numbers: Numbers) -> Any:
    """Texts with a point before a fraction and no groups of digits, as Arrow reads."""
    pc = import_extra("pyarrow.compute", "parquet", "keep=")

    if numbers.thousands:
        values = pc.replace_substring(values, numbers.thousands, "")
    if numbers.decimal != ".":
        values = pc.replace_substring(values, ".", "?")
        values = pc.replace_substring(values, numbers.decimal, ".")
    return values
