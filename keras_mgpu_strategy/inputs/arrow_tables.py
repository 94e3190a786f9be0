"""Arrow tables in memory, and Hugging Face data sets, which are made of them.

Read like Parquet files, a few rows at a time. A data set's selection of rows and
columns counts; one with a transform, which would not be called, is refused.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from keras_mgpu_strategy.formats.choosing import in_structure, present_inputs
from keras_mgpu_strategy.formats.columns import choose_columns
from keras_mgpu_strategy.formats.parquet.arrow_rows import ArrowRows
from keras_mgpu_strategy.formats.parquet.kept import KeptArrowColumns
from keras_mgpu_strategy.formats.parquet.schema import Part, schema_of
from keras_mgpu_strategy.inputs.forms import is_declared
from keras_mgpu_strategy.sources.arrow_values import joined
from keras_mgpu_strategy.sources.kept import about_kept
from keras_mgpu_strategy.sources.origins import as_array, digest_of_values
from keras_mgpu_strategy.sources.rebatch import Rows
from keras_mgpu_strategy.sources.tables import TableSource
from keras_mgpu_strategy.sources.unsupported import is_of
from keras_mgpu_strategy.system.extras import import_extra
from keras_mgpu_strategy.types import Nest, Origin

_NAME = "x"
_REMEDY = "Choose columns of the table, or rename them, by the names of the inputs."
_is_data_set = is_of("datasets", "Dataset")
_is_batch = is_of("pyarrow", "RecordBatch")
_is_table = is_of("pyarrow", "Table")


def is_table(x: Any) -> bool:
    """Whether `x` is a pyarrow table or record batch, or a `datasets.Dataset`."""
    return _is_table(x) or _is_batch(x) or _is_data_set(x)


def table_source(
    x: Any, input_spec: Nest, keep: Sequence[str] = (), *, ragged: bool = False
) -> TableSource:
    """Reads a table; ValueError for unfit columns, or a data set with a transform.

    If `ragged`, lists are rows that may differ in length.
    """
    pyarrow = import_extra("pyarrow", "parquet", "Reading tables of Arrow")
    if _is_batch(x):
        x = pyarrow.Table.from_batches([x])
    part = _of_data_set(x) if _is_data_set(x) else _of_table(x)
    schema = part.schema
    kinds = {name: kind.kind for name, kind in schema.types.items()}
    hidden, kept = schema.hidden | set(keep), KeptArrowColumns([part], schema, keep)
    seen = [name for name in kinds if name not in hidden]
    # If the model declares nothing, only the columns themselves show what it takes.
    given = None if is_declared(input_spec) or len(seen) == 1 else seen
    input_spec = present_inputs(input_spec, [*seen, *keep], given)
    choices = choose_columns(kinds, given, input_spec, _NAME, hidden, _REMEDY)
    rows = ArrowRows([part], schema, choices, False, kept, ragged=ragged)
    spec = in_structure(input_spec, rows.specs)
    values, types = _Values(rows), kept.schema
    return TableSource(rows.read, rows.num_rows, spec, values, types)


class _Values:
    def __init__(self, rows: ArrowRows) -> None:
        self._rows = rows

    def origin(self) -> Origin:
        about = {}
        for place, spec in enumerate(self._rows.specs):
            read = functools.partial(self._read, place)
            tokens = self._rows.tokens[place]
            digest = digest_of_values(read, self._rows.num_rows, spec, tokens)
            about[f"values of input {place}"] = digest
        if schema := self._rows.kept_schema:
            about |= about_kept(self._kept, self._rows.num_rows, schema)
        return Origin(about)

    def _read(self, place: int, start: int, stop: int) -> np.ndarray:
        pieces = self._pieces(start, stop)
        some = (rows.flat[place][:num] for rows, num in pieces)
        return np.concatenate([*map(as_array, some)])

    def _kept(self, start: int, stop: int) -> Any:
        pieces = self._pieces(start, stop)
        tables = [rows.marks.kept.slice(0, num) for rows, num in pieces]
        return joined(self._rows.kept_schema, tables)

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[Rows, int]]:
        """The rows read, with how many of them count."""
        with contextlib.closing(self._rows.read(start)) as batches:
            while start < stop:
                rows = next(batches)
                yield rows, stop - start
                start += rows.num_rows


def _part(schema: Any, num_rows: int, read: Callable[..., Any]) -> Part:
    def batches(
        names: Sequence[str], size: int, start: int
    ) -> Iterator[tuple[int, Any]]:
        for first in range(start, num_rows, size):
            position, stop = first, min(first + size, num_rows)
            for batch in read(list(names), first, stop).to_batches():
                yield position, batch
                position += batch.num_rows

    return Part(_NAME, schema_of(schema, _NAME), schema, num_rows, batches)


def _of_table(x: Any) -> Part:
    def read(names: list[str], start: int, stop: int) -> Any:
        return x.select(names).slice(start, stop - start)

    return _part(x.schema, x.num_rows, read)


def _of_data_set(x: Any) -> Part:
    if x.format["type"] == "custom":
        raise ValueError(
            f"{_NAME} is a Dataset with a transform, which makes rows only when asked. "
            "Apply it first: x.with_format(None).map(transform, batched=True)."
        )
    names = [name for name in x.column_names if name in x.format["columns"]]
    arrow = x.with_format("arrow")

    def read(names: list[str], start: int, stop: int) -> Any:
        return arrow.select_columns(names)[start:stop]

    schema = arrow.select_columns(names).features.arrow_schema
    return _part(schema, len(x), read)
