"""A file format that only tests know: one line of JSON per row.

It is as small as the guarantees of `FileFormat` and `FileInput` allow.
"""

import dataclasses
import json
import shutil

import numpy as np

from keras_mgpu_strategy.formats.file_source import open_named
from keras_mgpu_strategy.formats.paths import PathLike, one_file
from keras_mgpu_strategy.formats.registry import Format
from keras_mgpu_strategy.outputs.durable import Appender, remove, synced_file
from keras_mgpu_strategy.outputs.row_sink import RowSink, row_of

ROW = Format(
    "Toy",
    r"\.toy\Z",
    "tests.formats.toy:Toy",
    ".toy",
    "tests.formats.toy:ToyFormat",
    "tests.formats.toy",
)


@dataclasses.dataclass(frozen=True)
class Toy:
    """Rows of a `.toy` file, like a class of `mgpu.files`."""

    path: PathLike
    columns: str | None = None

    def open_rows(self, input_spec):
        files = one_file(self.path, "toy")
        lines = [json.loads(line) for line in files.files[0].read_text().splitlines()]
        names = list(lines[0]["columns"])

        def find(name):
            return np.array([line["columns"][name] for line in lines], np.float32)

        return open_named(files, "columns", names, self.columns, input_spec, find)


class ToyFormat:
    """Makes `.toy` files; holds values of every type."""

    def check(self, layout):
        """Everything fits."""

    def create(self, path, layout):
        remove(path)
        return ToySink(Appender(path), layout, layout.first_row, 0)

    def reopen(self, path, layout, mark):
        kept = mark.get("bytes", 0)
        row = row_of(path, layout, mark)
        return ToySink(Appender(path, kept), layout, row, kept)


class ToySink(RowSink):
    def __init__(self, file, layout, num_written, num_bytes):
        super().__init__(layout, num_written)
        self._file, self._num_bytes = file, num_bytes

    def _append(self, rows):
        lines = "".join(
            self._line(rows, index) for index in range(len(rows.outputs[0]))
        )
        self._num_bytes = self._file.put(lines.encode(), self._num_bytes)

    def _line(self, rows, index):
        pairs = zip(self._layout.columns, rows.outputs, strict=True)
        names, missing = rows.marks.names, rows.marks.missing
        line = {
            "row": rows.start + index,
            "file": names and names[index],
            "missing": missing is not None and bool(missing[index]),
            "columns": {column.name: _plain(array[index]) for column, array in pairs},
        }
        return json.dumps(line) + "\n"

    def _sync(self):
        self._file.sync()
        return {"bytes": self._num_bytes}

    def _complete(self):
        self._file.end_at(self._num_bytes)
        self._file.sync()

    def _release(self):
        self._file.close()


def _plain(value):
    """Numbers as they are, anything else as text."""
    array = np.asarray(value)
    return array.tolist() if array.dtype.kind in "biuf" else repr(array.tolist())


def check(sharded):
    """Checks that the files of all shards hold as many rows as they should."""
    for shard in sharded.shards:
        lines = sharded.file(shard).read_bytes().count(b"\n")
        if lines != len(sharded.rows(shard)):
            raise sharded.damaged(shard, f"has {lines} rows")


def join(sharded, target):
    """Writes the rows of all shards to `target`."""
    with synced_file(target) as output:
        for shard in sharded.shards:
            with open(sharded.file(shard), "rb") as file:
                shutil.copyfileobj(file, output)
