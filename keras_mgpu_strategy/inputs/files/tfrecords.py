"""TFRecord files, parsed by a function of the user.

Guarantees:

* Records keep their order; parsing runs in parallel.
* tf.data's autotuner is off: at the end of a pass it can stall for as long as the pass
  took.
* A damaged record is an error that names the file; an error of the user's function
  passes through as it is. A file cut off exactly between two records cannot be told
  from a shorter one.
* A record that claims more bytes than its file has is found before TensorFlow reads it,
  which would end the process there (2.21). In compressed files TensorFlow finds it
  itself, since it takes a record piece by piece, and holds at most what they unpack to.
"""

import contextlib
import dataclasses
import itertools
import pathlib
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import tensorflow as tf

from keras_mgpu_strategy.cores import num_cores
from keras_mgpu_strategy.inputs.datasets import dataset_source, without_autotune
from keras_mgpu_strategy.inputs.files.opened import FileSource
from keras_mgpu_strategy.inputs.files.paths import Paths, list_files
from keras_mgpu_strategy.inputs.streams import StreamSource
from keras_mgpu_strategy.inputs.validate import check_batch_size
from keras_mgpu_strategy.types import InputBatch, Nest

_HEAD, _CRC_BYTES = struct.Struct("<QI"), 4
"""The length of a record and its CRC before it, and one behind."""
PATTERN = r"\.tfrecords?(-\d+-of-\d+)?(\.gz)?$"


@dataclasses.dataclass(frozen=True)
class TFRecords:
    """Rows of TFRecord files; only reading to the end tells how many.

    Args:
        paths: A file, a folder or a list of files; compressed ones end in `.gz`. The
            files of a folder are read sorted by name; names that begin with `_` or `.`
            are left out.
        parse_fn: Makes one row of one record, in a graph: takes a string tensor of
            shape `()`, returns x, or a dict of x by the names of the model's inputs.
        batch_size: Rows that are held together while parsing, and that `steps` counts.
    """

    paths: Paths
    parse_fn: Callable[[tf.Tensor], Any]
    batch_size: int = 128

    def open_rows(self, input_spec: Nest) -> FileSource:
        """Opens the files, see `FileInput`. Rows have the shape that `parse_fn` gives.

        Raises:
            OSError: There is no such file.
            TypeError: `parse_fn` cannot be called, or returns ragged tensors.
            ValueError: Something else about `parse_fn`, or a damaged file.
        """
        check_batch_size(self.batch_size, self)
        if not callable(self.parse_fn):
            raise TypeError(
                f"Received parse_fn={self.parse_fn!r}, expected a function that makes "
                "a row of a serialized record, e.g. with tf.io.parse_single_example."
            )
        files = list_files(self.paths, "TFRecord", PATTERN)
        for file in files.files:
            _check_lengths(file)
        source = dataset_source(self._dataset(files.files), None, input_spec)
        name = getattr(self.parse_fn, "__qualname__", type(self.parse_fn).__name__)
        return FileSource(_Checked(source, files.files), files.identity(None, name))

    def _dataset(self, files: tuple[pathlib.Path, ...]) -> tf.data.Dataset:
        groups = [list(group) for _, group in itertools.groupby(files, _compression)]
        records = _records(groups[0])
        for group in groups[1:]:
            records = records.concatenate(_records(group))
        rows = records.map(
            self.parse_fn, num_parallel_calls=num_cores(), deterministic=True
        )
        return rows.batch(self.batch_size).prefetch(1)


class _Checked:
    """A stream of records that says which file is damaged."""

    def __init__(self, source: StreamSource, files: tuple[pathlib.Path, ...]) -> None:
        self._source = source
        self._files = files

    @property
    def num_rows(self) -> None:
        return None

    @property
    def spec(self) -> Nest:
        with _naming_damage(self._files):
            return self._source.spec

    def batches(self, batch_size: int, start: int = 0) -> Iterator[InputBatch]:
        return self._read(self._source.batches(batch_size, start))

    def _read(self, batches: Iterator[InputBatch]) -> Iterator[InputBatch]:
        with _naming_damage(self._files):
            yield from batches


@contextlib.contextmanager
def _naming_damage(files: tuple[pathlib.Path, ...]) -> Iterator[None]:
    try:
        yield
    except tf.errors.DataLossError as error:
        damaged = next((file for file in files if not _is_whole(file)), None)
        if damaged is None:  # found by the user's function, in what a record holds
            raise
        message = f"{damaged} is damaged or cut short: {error.message}"
        raise ValueError(message) from error


def _check_lengths(file: pathlib.Path) -> None:
    """Walks from length to length; the records themselves are passed over."""
    if _compression(file):
        return
    size, place = file.stat().st_size, 0
    with open(file, "rb") as opened:
        while place < size:
            head = opened.read(_HEAD.size)
            length = _HEAD.unpack(head)[0] if len(head) == _HEAD.size else size
            stop = place + _HEAD.size + length + _CRC_BYTES
            if stop > size:
                raise ValueError(
                    f"{file} is damaged or cut short: the record at byte {place} ends "
                    f"at byte {stop}, and the file at {size}. Copy or write it again."
                )
            place = opened.seek(stop)


def _compression(file: pathlib.Path) -> Literal["GZIP", ""]:
    return "GZIP" if file.suffix.lower() == ".gz" else ""


def _records(files: Sequence[pathlib.Path]) -> tf.data.TFRecordDataset:
    """Reads files of one compression, one after the other."""
    names = [str(file) for file in files]
    return tf.data.TFRecordDataset(names, compression_type=_compression(files[0]))


def _is_whole(file: pathlib.Path) -> bool:
    """Reads a file to its end; TensorFlow does not say which one it was reading."""
    try:
        for _ in without_autotune(_records([file]).batch(1024)):
            pass
    except tf.errors.DataLossError:
        return False
    return True
