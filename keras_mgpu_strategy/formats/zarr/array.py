"""One array of a zarr store, filled row by row.

Guarantees:

* At every moment a chunk is on disk as a whole, either the old or the new one.
* Only the chunks of the sink's own rows are touched; others may write the rest at the
  same time.
"""

import json
import pathlib
import re
from typing import Any

import numpy as np

from keras_mgpu_strategy.formats.zarr.encoding import ArraySpec, Encoder
from keras_mgpu_strategy.outputs.durable import (
    damaged,
    make_folder,
    remove,
    scratch_of,
    write_whole,
)
from keras_mgpu_strategy.outputs.interface import Layout
from keras_mgpu_strategy.outputs.strict_json import is_count


class ArrayWriter:
    """Writes the rows of one array in the store at `path`.

    The `tag` keeps the unfinished files of shards apart.
    """

    def __init__(
        self,
        path: pathlib.Path,
        spec: ArraySpec,
        layout: Layout,
        tag: str,
        encoder: Encoder,
    ):
        self._spec, self._layout, self._tag = spec, layout, tag
        self._folder = path / spec.column.name
        self._metadata = self._folder / "zarr.json"
        self._encoder = encoder
        shape = (spec.chunk_rows, *spec.column.row_shape)
        self._rows = np.empty(shape, spec.column.dtype)

    def create(self) -> None:
        """Begins the array, or joins the shards that have begun it.

        The caller must sync the folder around it.

        Raises:
            ValueError: They write another array.
        """
        make_folder(self._folder, sync=False)
        if self._layout.shard is not None and self._metadata.is_file():
            self._check_metadata()
        else:
            self.resize(self._layout.first_row)
        self._drop(self._layout.first_row)

    def reopen(self, stop: int) -> None:
        """Resumes after the rows before `stop`.

        Raises:
            ValueError: Some of them are not there.
        """
        if not self._metadata.is_file():
            raise damaged(self._metadata, "is missing")
        self._check_metadata()
        size, first = self._spec.chunk_rows, self._layout.first_row
        for index in range(first // size, -(-stop // size)):
            if not self._chunk(index).is_file():
                raise damaged(self._chunk(index), "is missing")
        if stop % size:
            self._rows[: stop % size] = self._read(stop - stop % size, stop)
        scratch_of(self._metadata, self._tag).unlink(missing_ok=True)
        self._drop(stop)

    def put(self, start: int, rows: np.ndarray) -> None:
        """Takes rows of one chunk, and writes it if they are its last."""
        offset = start % self._spec.chunk_rows
        self._rows[offset : offset + len(rows)] = rows
        if offset + len(rows) == self._spec.chunk_rows:
            self._write(start // self._spec.chunk_rows, self._spec.chunk_rows)

    def save(self, stop: int) -> None:
        """Puts the rows before `stop`, and how many there are, on disk."""
        index, count = divmod(stop, self._spec.chunk_rows)
        if count:
            self._write(index, count)
        if self._layout.num_rows is None:
            self.resize(stop)

    def resize(self, stop: int) -> None:
        """Writes how many rows there are: `stop` if unknown before."""
        content = json.dumps(self._described(stop), indent=2)
        write_whole(self._metadata, content.encode(), self._tag)

    def _described(self, num_rows: int) -> dict[str, Any]:
        known = self._layout.num_rows
        return self._encoder.metadata(self._spec, num_rows if known is None else known)

    def _write(self, index: int, count: int) -> None:
        write_whole(self._chunk(index), self._encoder.chunk(self._rows[:count]))

    def _chunk(self, index: int) -> pathlib.Path:
        return self._folder / self._spec.chunk_name(index)

    def _drop(self, row: int) -> None:
        """Removes own chunks that begin at or after `row`, and unfinished ones."""
        size, stop = self._spec.chunk_rows, self._layout.stop_row
        for path in self._folder.iterdir():
            match = re.fullmatch(r"(\.?)c\.(\d+)(\.0)*(\.partial)?", path.name)
            if match is None:
                continue
            start = int(match[2]) * size
            is_own = start >= self._layout.first_row and (stop is None or start < stop)
            if is_own and (match[1] or start >= row):
                remove(path)

    def _check_metadata(self) -> None:
        try:
            found = json.loads(self._metadata.read_bytes())
            num_rows = found["shape"][0]
            if not is_count(num_rows):
                raise ValueError(f"it has {num_rows!r:.40} rows")
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise damaged(self._metadata, f"cannot be read ({error})") from error
        expected = self._described(num_rows)
        if found != expected:
            raise damaged(
                self._metadata, f"describes another array: {found}, not {expected}"
            )

    def _read(self, start: int, stop: int) -> Any:
        import zarr

        try:
            array: Any = zarr.open_array(self._folder, mode="r")
            return array[start:stop]
        except (OSError, ValueError, RuntimeError) as error:
            raise damaged(self._folder, f"cannot be read ({error})") from error
