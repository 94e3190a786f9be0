"""Results in a `.zarr` store (format 3): a group with an array for each output.

Attributes are `outputs` and `structure`; axes are `row`, then `NAME_1` and so on; row
names are the array `file`. Chunks have about 4 MiB or less. Unwritten float rows read
as NaN. Shards write one store at once, what they share atomically.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from keras_mgpu_strategy.formats.zarr.array import group_metadata, writers_of
from keras_mgpu_strategy.outputs import durable, refusals
from keras_mgpu_strategy.outputs.interface import Layout
from keras_mgpu_strategy.outputs.row_sink import RowSink, row_of
from keras_mgpu_strategy.system.extras import import_extra
from keras_mgpu_strategy.types import HostBatch


@dataclasses.dataclass(frozen=True, slots=True)
class ZarrFormat:
    """Makes zarr stores; see `FileFormat`."""

    chunk_bytes: int = 4 * 2**20
    """Approximate size of a chunk before compression."""

    def check(self, layout: Layout) -> None:
        """Checks that such results can be stored, touching nothing."""
        refusals.check_lengths(layout, ".zarr")
        refusals.check_kinds(layout, ".zarr", "biufcO")
        refusals.check_widths(layout, ".zarr")
        _check_range(layout)
        zarr = import_extra("zarr", "zarr", "A .zarr output")
        if not hasattr(zarr, "create_array"):
            raise ImportError(
                f"A .zarr output needs zarr 3.1 or newer; this is {zarr.__version__}. "
                'Run `pip install --upgrade "keras_mgpu_strategy[zarr]"`.'
            )

    def create(self, path: pathlib.Path, layout: Layout) -> "ZarrSink":
        """Begins a new store; a shard joins that of the others, if it is the same."""
        self.check(layout)
        if layout.shard is None:
            durable.remove(path)
        durable.make_folder(path)
        sink = ZarrSink(path, layout, self.chunk_bytes, layout.first_row)
        for array in sink.arrays:
            array.create()
        durable.sync_folder(path)
        return sink

    def reopen(
        self, path: pathlib.Path, layout: Layout, mark: dict[str, int]
    ) -> "ZarrSink":
        """Resumes a store that `create` began, after the rows of `mark`."""
        row = row_of(path, layout, mark)
        durable.refuse_link(path)
        sink = ZarrSink(path, layout, self.chunk_bytes, row)
        for array in sink.arrays:
            array.reopen(row)
        return sink


class ZarrSink(RowSink):
    """See the module; made by `ZarrFormat`."""

    def __init__(
        self, path: pathlib.Path, layout: Layout, chunk_bytes: int, num_written: int
    ):
        super().__init__(layout, num_written)
        shard = layout.shard
        self._tag = "" if shard is None else f".{shard.index}-of-{shard.count}"
        self._metadata = path / "zarr.json"
        durable.scratch_of(self._metadata, self._tag).unlink(missing_ok=True)
        self._num_saved = -1
        self.arrays = writers_of(path, layout, chunk_bytes, self._tag)
        self._chunk_rows = min(array.chunk_rows for array in self.arrays)

    def _begin(self, structure: Any) -> None:
        names = [column.name for column in self._layout.columns]
        content = group_metadata({"outputs": names, "structure": structure})
        durable.write_whole(self._metadata, content, self._tag)

    def _fitting(self, rows: HostBatch) -> HostBatch:
        refusals.refuse_missing(self._layout, rows, ".zarr")
        return refusals.decoded(self._layout, rows, ".zarr")

    def _limit(self) -> int:
        return (self._num_written // self._chunk_rows + 1) * self._chunk_rows

    def _append(self, rows: HostBatch) -> None:
        arrays = list(rows.outputs)
        if rows.marks.names is not None:
            arrays.append(np.array(rows.marks.names, object))
        for array, values in zip(self.arrays, arrays, strict=True):
            array.put(rows.start, values)

    def _sync(self) -> dict[str, int]:
        if self._num_written > self._num_saved:
            for array in self.arrays:
                array.save(self._num_written)
            self._num_saved = self._num_written
        return {}

    def _complete(self) -> None:
        self._sync()
        if not self._metadata.is_file():
            self._begin(None)


def _check_range(layout: Layout) -> None:
    """Checks that the array's length is known, and that shards share no chunk."""
    is_part = layout.shard is not None or layout.first_row > 0
    if is_part and layout.num_rows is None:
        raise ValueError(
            "A shard of a .zarr output needs to know the number of rows of the whole "
            "input. Give an input of known length, or a .parquet output."
        )
    ends = {layout.first_row, layout.stop_row} - {layout.num_rows}
    if is_part and any(end is None or end % layout.row_multiple for end in ends):
        raise ValueError(
            f"A shard of a .zarr output holds rows {layout.first_row} to "
            f"{layout.stop_row}. Expected multiples of {layout.row_multiple}, or the "
            "end of the input."
        )
