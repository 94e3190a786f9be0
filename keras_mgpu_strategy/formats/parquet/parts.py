"""The `.parquet` files that hold the rows of one sink in turn, and its spool.

The spool is frames of a length (8 bytes, little-endian) and an Arrow record batch. Its
end may be torn: it is read only up to the requested rows.
"""

import contextlib
import pathlib
import re
from typing import Any

import numpy as np

from keras_mgpu_strategy.formats.parquet.arrow_table import schema_of
from keras_mgpu_strategy.outputs import durable
from keras_mgpu_strategy.outputs.interface import Layout

_GROUPS = 4
"""Row groups in a part."""
_LENGTH_BYTES = 8


class Parts:
    """The parts of one sink, each of `part_rows` rows but the last."""

    def __init__(self, folder: pathlib.Path, layout: Layout, part_rows: int):
        self._folder, self._layout, self._part_rows = folder, layout, part_rows
        which = "" if layout.shard is None else f"-{layout.shard.numbers}"
        self._stem = f"part{which}"
        self.spool = Spool(folder / f".unfinished{which}")

    def index_of(self, row: int) -> int:
        """Which part holds a row."""
        return (row - self._layout.first_row) // self._part_rows

    def start_of(self, index: int) -> int:
        """Index of a part's first row."""
        return self._layout.first_row + index * self._part_rows

    def write(self, index: int, table: Any) -> None:
        """Writes a part, in place of what may be there."""
        import pyarrow.parquet as pq

        # A row group's values are held again, and twice as many levels.
        group_rows = max(1, self._part_rows // _GROUPS)
        with durable.replacing(self._path(index)) as file:
            pq.write_table(table, file, row_group_size=group_rows, use_dictionary=False)

    def drop(self, index: int) -> None:
        """Removes the parts from `index` onwards, and incomplete files."""
        name = re.compile(rf"\.?{self._stem}-(\d+)\.parquet(\.partial)?")
        for path in self._folder.iterdir():
            match = name.fullmatch(path.name)
            if match and (match[2] or int(match[1]) >= index):
                path.unlink()

    def tail(self, num_written: int) -> Any:
        """A table of the rows before `num_written` that fill no part; None for none."""
        import pyarrow as pa

        if not self._folder.is_dir():
            raise durable.damaged(self._folder, "is missing")
        index = self.index_of(num_written)
        for whole in range(index):
            self._read(whole, self._part_rows, only_count=True)
        start, count = self.start_of(index), num_written - self.start_of(index)
        if not count:
            return None
        schema = schema_of(self._layout)
        table = self.spool.read(schema, count)
        if table.num_rows < count or table["row"][0].as_py() != start:
            table = self._read(index, count).slice(0, count).combine_chunks()
        what = None
        if not table.schema.equals(schema):
            what = f"other columns than expected: {table.schema.names}"
        elif not np.array_equal(table["row"], np.arange(start, num_written)):
            what = f"rows that do not follow each other, from row {start} on"
        if what is not None:
            raise durable.damaged(self._folder, f"holds {what}")
        # Files may have other names for the values of lists.
        return pa.Table.from_arrays(table.columns, schema=schema)

    def _path(self, index: int) -> pathlib.Path:
        return self._folder / f"{self._stem}-{index:05d}.parquet"

    def _read(self, index: int, num_rows: int, only_count: bool = False) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path, start = self._path(index), self.start_of(index)
        if not path.is_file():
            rows = f"rows {start} to {start + num_rows}"
            raise durable.damaged(self._folder, f"lacks {rows}, which no file holds")
        try:
            with pq.ParquetFile(path) as file:
                found = file.metadata.num_rows
                table = None if only_count else file.read()
        except (OSError, pa.ArrowInvalid) as error:
            raise durable.damaged(path, f"cannot be read ({error})") from error
        if found < num_rows:
            raise durable.damaged(
                path, f"has {found} rows, expected at least {num_rows}"
            )
        return table


class Spool:
    """The spool of one sink; its file is there while there are such rows."""

    def __init__(self, path: pathlib.Path):
        self._path, self._end = path, 0
        self._file: durable.Appender | None = None

    def add(self, table: Any) -> None:
        """Puts rows safely on disk, after those that are there."""
        if self._file is None:
            self._file, self._end = durable.Appender(self._path), 0
        end = self._file.put(_frame(table), self._end)
        self._file.sync()
        self._end = end

    def restart(self, table: Any) -> None:
        """Replaces whatever it holds with the rows of `table`, atomically."""
        self.close()
        frame = _frame(table)
        durable.write_whole(self._path, frame)
        self._file, self._end = durable.Appender(self._path, len(frame)), len(frame)

    def read(self, schema: Any, num_rows: int) -> Any:
        """Returns a table of the first rows; of fewer if there are fewer whole ones."""
        import pyarrow as pa

        batches: list[Any] = []
        torn = (OSError, EOFError, pa.ArrowInvalid, pa.ArrowIndexError)
        with contextlib.suppress(FileNotFoundError), open(self._path, "rb") as file:
            size = self._path.stat().st_size
            while sum(map(len, batches)) < num_rows:
                num_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
                if not 0 < num_bytes <= size:
                    break
                content = pa.py_buffer(file.read(num_bytes))
                try:
                    batch = pa.ipc.read_record_batch(content, schema)
                    batch.validate(full=True)
                except torn:
                    break
                batches.append(batch)
        table = pa.Table.from_batches(batches, schema)
        return table.slice(0, num_rows).combine_chunks()

    def clear(self) -> None:
        """Holds no rows, and leaves no file."""
        self.close()
        durable.remove(self._path)
        durable.remove(durable.scratch_of(self._path))

    def close(self) -> None:
        """Closes the file; calling it twice is harmless."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _frame(table: Any) -> bytes:
    (batch,) = table.combine_chunks().to_batches()
    content = batch.serialize().to_pybytes()
    return len(content).to_bytes(_LENGTH_BYTES, "little") + content
