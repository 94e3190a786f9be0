"""Results, layouts and write runs that tests of file sinks share."""

import dataclasses
import decimal
import json
import os
import pathlib
import signal
import traceback
import warnings

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from keras_mgpu_strategy.formats.csv.write import CsvFormat
from keras_mgpu_strategy.formats.npy.write import NpyFormat
from keras_mgpu_strategy.formats.parquet.write import ParquetFormat
from keras_mgpu_strategy.formats.zarr.write import ZarrFormat
from keras_mgpu_strategy.outputs.columns import columns_of
from keras_mgpu_strategy.outputs.interface import Layout
from keras_mgpu_strategy.types import HostBatch, RowMarks
from tests.formats.toy import ToyFormat

# Parts and chunks of a few rows, so that short outputs have many.
FORMATS = {
    "npy": NpyFormat(),
    "parquet": ParquetFormat(part_bytes=256),
    "zarr": ZarrFormat(chunk_bytes=64),
    "csv": CsvFormat(),
    "toy": ToyFormat(),
}
MARKED = ("parquet", "csv", "toy")
"""Formats that hold missing rows of any type."""
TABLES = ("parquet", "csv")
"""Formats that hold columns next to the results."""


def some(shape, dtype, seed=0):
    """Values of a dtype, of any size and sign, including NaN and infinity."""
    random = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return random.integers(0, 2, shape).astype(bool)
    if dtype.kind in "iu":
        size = (*shape, dtype.itemsize)
        return random.integers(0, 256, size, np.uint8).view(dtype)[..., 0]
    values = random.standard_normal(shape) * 10.0 ** random.integers(-4, 4, shape)
    values = values.astype(dtype)
    values.reshape(-1)[1::17] = np.nan
    values.reshape(-1)[2::19] = np.inf
    return values


def one(num_rows, seed=0):
    return some((num_rows, 3), np.float32, seed)


def number(num_rows, seed=0):
    return some((num_rows,), np.float64, seed)


def many(num_rows, seed=0):
    return {
        "scores": some((num_rows, 3), np.float32, seed),
        "id": some((num_rows,), np.int64, seed),
    }


def nested(num_rows, seed=0):
    return {
        "heads": [
            some((num_rows,), np.float16, seed),
            (some((num_rows, 2), bool, seed), some((num_rows, 1), np.uint8, seed)),
        ],
        "a": some((num_rows,), np.int32, seed),
    }


def tensor(num_rows, seed=0):
    return some((num_rows, 2, 3), np.float32, seed)


def texts(num_rows, seed=0):
    """Strings as TensorFlow gives them, of growing length and any content."""
    random = np.random.default_rng(seed)
    words = [b"", b"a", b'"b", \r\nc', "na\u00efve \u2603".encode(), b"=1+1", b" x\t "]
    chosen = random.choice(np.array(words, object), (num_rows, 3))
    sizes = random.integers(0, 1 + 2 * np.arange(num_rows))
    label = [word * int(size) for word, size in zip(chosen[:, 0], sizes, strict=True)]
    filled = np.empty(num_rows, object)
    filled[:] = label
    return {"label": filled, "words": chosen[:, 1:]}


OUTPUTS = {"one": one, "number": number, "many": many, "nested": nested}
OUTPUTS["texts"] = texts


def kept(num_rows, seed=0):
    """Columns of an input, of many types, with and without nulls."""
    random = np.random.default_rng(seed)
    numbers = random.integers(-(2**40), 2**40, num_rows)
    some = [None if number % 5 == 0 else int(number) for number in numbers]
    columns = {
        "key": pa.array([f"k{number}, \u00e4\n" for number in numbers]),
        "number": pa.array(numbers),
        "some": pa.array(some, pa.int16() if not num_rows else None),
        "weight": pa.array(numbers / 7, pa.float32()),
        "flag": pa.array([n and bool(n % 2) for n in some], pa.bool_()),
        "at": pa.array(some, pa.timestamp("us", "Europe/Berlin")),
        "day": pa.array([n and n % 9999 for n in some], pa.date32()),
        "price": pa.array([n and decimal.Decimal(n) / 8 for n in some]),
        "empty": pa.nulls(num_rows),
    }
    if not num_rows:
        columns["price"] = pa.nulls(0, pa.decimal128(20, 3))
    return pa.table(columns)


def layout_of(outputs, **options):
    return Layout(columns_of(outputs), **options)


def cut(outputs, start, stop):
    return tf.nest.map_structure(lambda array: array[start:stop], outputs)


def names_of(start, stop):
    return [f'folder/"{row}", ä.png' for row in range(start, stop)]


@dataclasses.dataclass
class Results:
    """What to write: rows `first` to `first + len` of an input."""

    outputs: object
    layout: Layout
    missing: np.ndarray | None = None
    kept: pa.Table | None = None

    @property
    def first(self):
        return self.layout.first_row

    @property
    def stop(self):
        return self.first + len(tf.nest.flatten(self.outputs)[0])

    def write(self, sink, stop, outputs=None):
        """Writes from the sink's position up to a row."""
        start = sink.num_written
        part = slice(start - self.first, stop - self.first)
        names = names_of(start, stop) if self.layout.has_names else None
        missing = None if self.missing is None else self.missing[part]
        outputs = self.outputs if outputs is None else outputs
        some = cut(outputs, part.start, part.stop)
        beside = None
        if self.layout.kept is not None:
            beside = self.kept.slice(part.start, part.stop - part.start)
        sink.write(HostBatch(start, some, RowMarks(names, missing, beside)))

    def unknown(self):
        """The same, with the number of rows unknown until the end."""
        layout = dataclasses.replace(self.layout, stop_row=None, num_rows=None)
        return dataclasses.replace(self, layout=layout)


def results(
    make=one, num_rows=30, *, has_names=False, missing=(), has_kept=False, **options
):
    """Rows of a maker, starting at row 0 and all known unless options differ."""
    options = {"stop_row": num_rows, "num_rows": num_rows} | options
    outputs = make(options["stop_row"] - options.get("first_row", 0))
    mask = None
    if missing:
        mask = np.isin(np.arange(num_rows), missing)
        for array in tf.nest.flatten(outputs):
            if isinstance(array, np.ndarray) and array.dtype.kind == "f":
                array[mask] = np.nan
    beside = kept(num_rows) if has_kept else None
    if beside is not None:
        options |= {"kept": beside.schema}
    layout = layout_of(outputs, has_names=has_names, **options)
    return Results(outputs, layout, mask, beside)


def written(kind, path, what, step=None):
    """Writes all rows without interruption; returns the bytes of every file."""
    sink = FORMATS[kind].create(path, what.layout)
    while sink.num_written < what.stop:
        what.write(sink, min(what.stop, sink.num_written + (step or what.stop)))
    if what.first == what.stop:
        what.write(sink, what.stop)
    sink.finish()
    sink.close()
    return content(path)


def begun(kind, path, what, num_rows):
    """Writes the first rows of an output and stops; returns the mark after them."""
    sink = FORMATS[kind].create(path, what.layout)
    what.write(sink, num_rows)
    mark = sink.flush()
    sink.close()
    return mark


def assert_resumes(kind, path, what, mark):
    """Checks that an output, once resumed, is as if it had never been stopped."""
    sink = resumed(kind, path, what, mark)
    what.write(sink, what.stop)
    sink.finish()
    assert content(path) == written(kind, path.with_name("whole"), what)


def assert_not_resumed(kind, path, what, mark, message):
    """Checks that a damaged output is refused and left untouched."""
    before = content(path)
    with pytest.raises(ValueError, match=message):
        FORMATS[kind].reopen(path, what.layout, mark)
    assert content(path) == before


def bfloat16s():
    """Every bfloat16 value, including every NaN."""
    outputs = np.arange(2**16).astype(np.uint16).view(ml_dtypes.bfloat16)
    return Results(outputs, layout_of(outputs))


def content(path):
    """The bytes of a file, or of every file in a folder."""
    if path.is_file():
        return {"": path.read_bytes()}
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in files}


def in_child(work):
    """Runs `work` in a process of its own; returns its id.

    A fork: another interpreter would spend its time loading TensorFlow.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process = os.fork()
    if process:
        return process
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def exit_code(process):
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def kill(process):
    os.kill(process, signal.SIGKILL)
    return exit_code(process)


def note(path, mark):
    """Adds a mark to a file of marks, as a journal does."""
    with open(path, "a") as file:
        file.write(f"{json.dumps(mark)}\n")


def last_mark(path: pathlib.Path):
    """The last mark in such a file, or None."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith("\n")]
    return json.loads(whole[-1]) if whole else None


def resumed(kind, path, what, mark):
    """A sink that resumes after a mark; a new one if there is none."""
    if mark is None:
        return FORMATS[kind].create(path, what.layout)
    return FORMATS[kind].reopen(path, what.layout, mark)
