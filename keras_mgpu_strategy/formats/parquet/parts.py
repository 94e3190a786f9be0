"""The `.parquet` files that hold the rows of one sink in turn."""

import pathlib
import re
from typing import Any

from keras_mgpu_strategy.formats.parquet.arrow_table import rows_of, schema_of
from keras_mgpu_strategy.formats.parquet.spool import read_spool
from keras_mgpu_strategy.outputs.durable import damaged, replacing
from keras_mgpu_strategy.outputs.interface import Layout
from keras_mgpu_strategy.outputs.rows import Rows

_GROUPS = 4
"""Row groups in a part."""


class Parts:
    """The parts of one sink: which rows each holds, and what it is called.

    Args:
        folder: Where they lie.
        layout: What they hold.
        part_rows: Rows of each but the last.

    Attributes:
        capacity: The most rows that a part can have.
        spool_path: Where rows are kept until they fill a part.
    """

    def __init__(self, folder: pathlib.Path, layout: Layout, part_rows: int):
        self._folder, self._layout, self._part_rows = folder, layout, part_rows
        shard = layout.shard
        which = "" if shard is None else f"-{shard.numbers}"
        self._stem = f"part{which}"
        self.spool_path = folder / f".unfinished{which}"
        stop = layout.first_row + part_rows
        stop = stop if layout.stop_row is None else min(stop, layout.stop_row)
        self.capacity = max(1, stop - layout.first_row)

    def index_of(self, row: int) -> int:
        """Which part holds a row."""
        return (row - self._layout.first_row) // self._part_rows

    def start_of(self, index: int) -> int:
        """Index of a part's first row."""
        return self._layout.first_row + index * self._part_rows

    def path_of(self, index: int) -> pathlib.Path:
        """What a part is called."""
        return self._folder / f"{self._stem}-{index:05d}.parquet"

    def write(self, index: int, table: Any) -> None:
        """Writes a part, in place of what may be there."""
        import pyarrow.parquet as pq

        # A row group's values are held again, and twice as many levels.
        group_rows = max(1, self._part_rows // _GROUPS)
        with replacing(self.path_of(index)) as file:
            pq.write_table(table, file, row_group_size=group_rows, use_dictionary=False)

    def drop(self, index: int) -> None:
        """Removes the parts from `index` onwards, and incomplete files."""
        name = re.compile(rf"\.?{self._stem}-(\d+)\.parquet(\.partial)?")
        for path in self._folder.iterdir():
            match = name.fullmatch(path.name)
            if match and (match[2] or int(match[1]) >= index):
                path.unlink()

    def check(self, num_written: int) -> None:
        """Checks that the parts before a row are there and have all their rows."""
        if not self._folder.is_dir():
            raise damaged(self._folder, "is missing")
        for index in range(self.index_of(num_written)):
            self._read(index, self._part_rows, only_count=True)

    def tail(self, num_written: int) -> Rows | None:
        """The rows before `num_written` that do not fill a part; None without any.

        They are in the spool, or else in the part that was made from it and later rows.
        """
        index = self.index_of(num_written)
        start, count = self.start_of(index), num_written - self.start_of(index)
        if not count:
            return None
        table = read_spool(self.spool_path, schema_of(self._layout), count)
        if table.num_rows < count or table["row"][0].as_py() != start:
            table = self._read(index, count).slice(0, count).combine_chunks()
        try:
            return rows_of(self._layout, table)
        except ValueError as error:
            raise damaged(self._folder, f"holds {error}") from error

    def _read(self, index: int, num_rows: int, only_count: bool = False) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path, start = self.path_of(index), self.start_of(index)
        if not path.is_file():
            rows = f"rows {start} to {start + num_rows}"
            raise damaged(self._folder, f"lacks {rows}, in a part or beside")
        try:
            with pq.ParquetFile(path) as file:
                found = file.metadata.num_rows
                table = None if only_count else file.read()
        except (OSError, pa.ArrowInvalid) as error:
            raise damaged(path, f"cannot be read ({error})") from error
        if found < num_rows:
            raise damaged(path, f"has {found} rows, expected at least {num_rows}")
        return table
