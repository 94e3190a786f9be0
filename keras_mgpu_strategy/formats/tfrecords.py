"""TFRecord files, parsed by a user's function in parallel, in order.

Damage is an error that names the file; the user's own errors pass through. Only an
uncompressed file cut off exactly between records goes unnoticed. Records that claim
more bytes than there are would crash TensorFlow (2.21), so are found before it reads.
"""

import contextlib
import dataclasses
import pathlib
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.formats.file_source import FileSource
from keras_mgpu_strategy.formats.paths import Paths, list_files, short_repr
from keras_mgpu_strategy.formats.registry import TFRECORDS
from keras_mgpu_strategy.sources.checks import check_batch_size
from keras_mgpu_strategy.sources.datasets import dataset_source, without_autotune
from keras_mgpu_strategy.sources.streams import Form
from keras_mgpu_strategy.system.environment import num_cores
from keras_mgpu_strategy.system.tracebacks import short_traceback
from keras_mgpu_strategy.types import Nest

_HEAD, _CRC_BYTES = struct.Struct("<QI"), 4
"""The length of a record and its CRC before it, and one after it."""
_PIECE_BYTES = 2**20


@short_traceback
@dataclasses.dataclass(frozen=True)
class TFRecords:
    """Rows of TFRecord files; their number is known only after reading to the end.

    Args:
        paths: A file, a folder or a list of files, which may be compressed (GZIP or
            ZLIB). The files of a folder are read sorted by name; names that begin with
            `_` or `.` are left out.
        parse_fn: Turns one record into one row, in a graph: takes a string tensor of
            shape `()`, returns x, or a dict of x by the names of the model's inputs.
        batch_size: Rows of a batch while parsing, which `steps` counts.
    """

    paths: Paths
    parse_fn: Callable[[tf.Tensor], Any]
    batch_size: int = 128
    __repr__ = short_repr

    def open_rows(self, input_spec: Nest, ragged: Form | None = None) -> FileSource:
        """Opens the files, see `FileInput`. Rows have the shape that `parse_fn` gives.

        With a form `ragged`, they may differ in length.

        Raises:
            OSError: There is no such file.
            TypeError: `parse_fn` is not callable, or returns ragged tensors.
            ValueError: `parse_fn` is wrong in another way, or a file is damaged.
        """
        check_batch_size(self.batch_size, self)
        if not callable(self.parse_fn):
            raise TypeError(
                f"Received parse_fn={self.parse_fn!r}, expected a function that makes "
                "a row of a serialized record, e.g. with tf.io.parse_single_example."
            )
        files = list_files(self.paths, "TFRecord", TFRECORDS)
        compressions = {file: _compression(file) for file in files.files}
        rows = self._rows(compressions)
        if ragged is None:
            batches = rows.batch(self.batch_size).prefetch(1)
            source = dataset_source(batches, None, input_spec)
        else:
            batches = rows.ragged_batch(self.batch_size).prefetch(1)
            source = dataset_source(
                batches, None, input_spec, ragged, lists_are_rows=True
            )
        identity = files.identity(None, how=self.parse_fn)
        return FileSource(source, identity, lambda: _naming_damage(compressions))

    def _rows(self, files: Mapping[pathlib.Path, str]) -> tf.data.Dataset:
        pairs = (list(map(str, files)), list(files.values()))
        records = tf.data.Dataset.from_tensor_slices(pairs).flat_map(
            lambda *pair: _records(*pair)
        )
        return records.map(
            self.parse_fn, num_parallel_calls=num_cores(), deterministic=True
        )


@contextlib.contextmanager
def _naming_damage(files: Mapping[pathlib.Path, str]) -> Iterator[None]:
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        if "Cannot add tensor to the batch" not in error.message:
            raise
        raise ValueError(
            f"{next(iter(files))}: parse_fn made rows of unequal length, expected one "
            "length for all rows. Pass pad=mgpu.Pad(), by which they are padded to a "
            "few lengths."
        ) from error
    except tf.errors.DataLossError as error:
        damaged = next((f for f in files if not _is_whole(f, files[f])), None)
        if damaged is None:  # found by the user's function, in what a record holds
            raise
        # The rest of the message is about its graph.
        place = re.search(r"\w+ record at \d+", error.message)
        where = f": {place[0]}" if place else ""
        raise ValueError(
            f"{damaged} is damaged or cut short{where}. Copy or write it again."
        ) from error


def _compression(file: pathlib.Path) -> str:
    """Returns how a file is compressed; a `ValueError` if it is not, and truncated."""
    damage = _damage(file)
    if damage is None:
        # The length of a record may make its file look compressed.
        return ""
    with open(file, "rb") as opened:
        head = opened.read(_HEAD.size)
    if head[:3] == b"\x1f\x8b\x08":
        return "GZIP"
    # The length of a record has zeros where ZLIB has compressed bytes.
    is_zlib = head[0] & 0x8F == 8 and head[4:8] != bytes(4)
    if is_zlib and int.from_bytes(head[:2], "big") % 31 == 0:
        return "ZLIB"
    raise ValueError(
        f"{file} is damaged or cut short: {damage}. Copy or write it again."
    )


def _damage(file: pathlib.Path) -> str | None:
    """Walks from length to length, skipping the records themselves."""
    place, size = 0, file.stat().st_size
    with open(file, "rb") as opened:
        while place < size:
            head = opened.read(_HEAD.size)
            length = _HEAD.unpack(head)[0] if len(head) == _HEAD.size else size
            stop = place + _HEAD.size + length + _CRC_BYTES
            if stop > size:
                return (
                    f"the record at byte {place} ends at byte {stop}, and the file at "
                    f"{size}"
                )
            place = opened.seek(stop)
    return None


def _records(file: Any, compression: Any) -> tf.data.Dataset:
    """The records of a file, and an error after them if it does not end there."""

    def check_end(_: tf.Tensor) -> tf.Tensor:
        end = tf.numpy_function(_end_of, [file, compression], tf.string)
        # Decompressing what is not compressed raises the same error as any damage.
        return tf.io.decode_compressed(tf.ensure_shape(end, []), "ZLIB") != b""

    end = tf.data.Dataset.from_tensors(b"").filter(check_end)
    return tf.data.TFRecordDataset(file, compression_type=compression).concatenate(end)


def _end_of(file: bytes, compression: bytes) -> bytes:
    """An empty ZLIB stream if a file ends as it should, or else no such stream."""
    is_complete = not compression or _is_complete(file, compression)
    return zlib.compress(b"") if is_complete else b"cut short"


def _is_complete(file: bytes, compression: bytes) -> bool:
    """Whether compressed data end as they should; TensorFlow (2.21) may not notice."""
    window_bits = {b"GZIP": 31, b"ZLIB": 15}[compression]
    inflater = zlib.decompressobj(window_bits)
    with open(file, "rb") as opened:
        packed = opened.read(_PIECE_BYTES)
        while packed:
            if inflater.eof:  # files that were joined are one file
                inflater = zlib.decompressobj(window_bits)
            try:
                inflater.decompress(packed, _PIECE_BYTES)
            except zlib.error:
                return False
            rest = inflater.unconsumed_tail or inflater.unused_data
            packed = rest or opened.read(_PIECE_BYTES)
    return inflater.eof


def _is_whole(file: pathlib.Path, compression: str) -> bool:
    """Reads a file to its end; TensorFlow does not report which one it was reading."""
    records = _records(tf.constant(str(file)), tf.constant(compression))
    try:
        # tf.data's autotuner can stall at the end for as long as a pass took.
        for _ in without_autotune(records.batch(1024)):
            pass
    except tf.errors.DataLossError:
        return False
    return True
