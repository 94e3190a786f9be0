"""Results in `.npy` files, byte for byte as `numpy.save` writes them.

Several outputs are a folder of `NAME.npy` and an `index.json`; row names are not
stored. If the number of rows is known, a lack of room is found before any work. No
memory map is used: on a full disk it would kill the process (SIGBUS).
"""

import contextlib
import pathlib
from typing import Any

from keras_mgpu_strategy.formats.npy import index as npy_index
from keras_mgpu_strategy.formats.npy.file import NpyFile, NpyTexts
from keras_mgpu_strategy.formats.npy.index import NpyIndex, read_index
from keras_mgpu_strategy.outputs import durable, refusals
from keras_mgpu_strategy.outputs.interface import Layout
from keras_mgpu_strategy.outputs.row_sink import RowSink, row_of
from keras_mgpu_strategy.outputs.rows import stored_columns
from keras_mgpu_strategy.types import HostBatch


class NpyFormat:
    """Makes `.npy` files, or folders of them; see `FileFormat`."""

    def check(self, layout: Layout) -> None:
        """Checks that such results can be stored, touching nothing."""
        refusals.check_lengths(layout, ".npy")
        refusals.check_kinds(layout, ".npy", "biufcO")

    def create(self, path: pathlib.Path, layout: Layout) -> "NpySink":
        """Begins a new file or folder at `path`, in place of what may be there."""
        self.check(layout)
        durable.remove(path)
        if len(layout.columns) > 1:
            durable.make_folder(path)
        try:
            files = _opened(path, layout, None)
        except OSError:
            durable.remove(path)  # others may need the reserved room
            raise
        return NpySink(path, layout, files, layout.first_row)

    def reopen(
        self, path: pathlib.Path, layout: Layout, mark: dict[str, int]
    ) -> "NpySink":
        """Resumes a file that `create` began, after the rows of `mark`."""
        row = row_of(path, layout, mark)
        kept = row - layout.first_row
        if len(layout.columns) > 1:
            durable.scratch_of(path / npy_index.NAME).unlink(missing_ok=True)
        files = _opened(path, layout, kept)
        return NpySink(path, layout, files, row)


class NpySink(RowSink):
    """See the module; made by `NpyFormat`."""

    def __init__(
        self, path: pathlib.Path, layout: Layout, files: list[NpyFile], num_written: int
    ):
        super().__init__(layout, num_written)
        self._index = path / npy_index.NAME if len(files) > 1 else None
        self._files = files

    def _begin(self, structure: Any) -> None:
        if self._index is not None:
            self._write_index(self._index, structure, None)

    def _fitting(self, rows: HostBatch) -> HostBatch:
        refusals.refuse_missing(self._layout, rows, ".npy")
        refusals.refuse_nul_at_end(self._layout, rows)
        return rows

    def _append(self, rows: HostBatch) -> None:
        for file, array in zip(self._files, rows.outputs, strict=True):
            file.put(rows.start - self._layout.first_row, array)

    def _sync(self) -> dict[str, int]:
        for file in self._files:
            file.sync()
        return {}

    def _complete(self) -> None:
        num_rows = self._num_written - self._layout.first_row
        for file in self._files:
            file.complete(num_rows)
        if self._index is not None:
            self._write_index(self._index, _structure_in(self._index), num_rows)

    def _release(self) -> None:
        for file in self._files:
            file.close()

    def _write_index(
        self, path: pathlib.Path, structure: Any, num_rows: int | None
    ) -> None:
        names = tuple(column.name for column in self._layout.columns)
        index = NpyIndex(names, structure, self._layout.first_row, num_rows)
        durable.write_whole(path, index.content())


def _opened(path: pathlib.Path, layout: Layout, kept: int | None) -> list[NpyFile]:
    """The files of all columns, each begun; none stays open if one fails."""
    columns, stop = stored_columns(layout), layout.stop_row
    num_rows = None if stop is None else stop - layout.first_row
    files = []
    with contextlib.ExitStack() as stack:
        for column in columns:
            name = path if len(columns) == 1 else path / f"{column.name}.npy"
            kind = NpyTexts if column.is_text else NpyFile
            file = stack.enter_context(
                contextlib.closing(kind(name, column, num_rows, kept))
            )
            file.begin()
            files.append(file)
        stack.pop_all()
    return files


def _structure_in(index: pathlib.Path) -> Any:
    """The structure of the outputs that an earlier `write` left there."""
    if not index.is_file():
        return None
    try:
        return read_index(index).structure
    except ValueError as error:
        raise durable.damaged(index, f"is damaged: {error}") from error
