"""What distinguishes the rows of arrays, files and streams from other rows.

Values are compared as the model is given them. Up to 256 MiB are read whole, more by
samples; then the times of files count, too. A file that cannot be read counts as empty.
Of unknown array-likes and of streams, only the first row is compared.
"""

import bisect
import contextlib
import datetime
import functools
import hashlib
import itertools
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.digests.samples import (
    digest_of_array,
    digest_of_rows,
    is_large,
    sample_places,
)
from keras_mgpu_strategy.sources.leaf import Leaf, Memory
from keras_mgpu_strategy.sources.nests import leaves
from keras_mgpu_strategy.types import Nest, Origin, Ragged, Source

Paths = Sequence[str | os.PathLike[str]]
_PIECE_BYTES = 2**20


def origin_of(source: Source) -> Origin:
    """Distinguishes what a source reads from what others read."""
    if hasattr(source, "origin"):
        return source.origin()  # type: ignore[attr-defined]
    return Origin({"files of the input": str(getattr(source, "identity", ""))})


def origin_of_arrays(x: Nest, flat: Sequence[Leaf], num_rows: int) -> Origin:
    """Distinguishes `num_rows` rows of arrays `x`, read as `flat`, from others."""
    about: dict[str, Any] = {}
    for leaf in flat:
        first = _readable(leaf, 0, min(1, num_rows))
        about[f"first row of {leaf.path}"] = digest_of_array(first)
        digest = None
        if leaf.memory is not Memory.UNKNOWN:  # reading would take long, or fail
            read = functools.partial(_readable, leaf)
            lengths = getattr(leaf, "lengths", np.ones(1))
            tokens = math.ceil(lengths.mean()) if len(lengths) else 0
            digest = digest_of_values(read, num_rows, leaf.spec, tokens)
        about[f"values of {leaf.path}"] = digest
    # Maps in other modes may have been changed in this process.
    maps = [m for _, m in leaves(x) if isinstance(m, np.memmap) and m.mode == "r"]
    contents = _Contents([str(m.filename) for m in maps if m.filename])
    if not is_large(contents.num_bytes):
        return Origin(about)
    return Origin(about, contents.times(), contents.digest)


def digest_of_values(
    read: Callable[[int, int], np.ndarray],
    num_rows: int,
    spec: tf.TensorSpec,
    tokens: int = 1,
) -> str:
    """Returns a digest of the rows that `read` returns, or of samples if many.

    `tokens` is how many a row has on average, if their number varies.
    """
    row_bytes = spec.dtype.size * math.prod(axis or tokens for axis in spec.shape[1:])
    # A size of 0 stands for strings.
    return digest_of_rows(read, num_rows, 0 if spec.dtype == tf.string else row_bytes)


def origin_of_files(files: Paths, about: dict[str, Any]) -> Origin:
    """Identifies rows by the files, in order, that they are read from, and `about`."""
    contents, key = _Contents(files), "content of the files"
    if not is_large(contents.num_bytes):
        return Origin({**about, key: contents.digest()})
    about = {**about, key: contents.sampled()}
    return Origin(about, contents.times(), contents.digest)


def as_array(rows: np.ndarray | Ragged) -> np.ndarray:
    """Returns what is equal for equal rows: themselves, or all there is to them."""
    if not isinstance(rows, Ragged):
        return rows
    rows = rows.packed()
    if rows.dtype.hasobject:
        return np.concatenate([rows.values.ravel(), rows.offsets.astype(object)])
    parts = (np.ascontiguousarray(part) for part in (rows.values, rows.offsets))
    return np.concatenate([part.view(np.uint8).ravel() for part in parts])


def _readable(leaf: Leaf, start: int, stop: int) -> np.ndarray:
    try:
        return as_array(leaf.read(start, stop))
    except ValueError:  # a row that cannot be used, which the run reports
        return np.array("unusable")


class _Contents:
    """The content of files, with their sizes at the time of creation."""

    def __init__(self, files: Paths) -> None:
        self._files = files
        self._sizes: list[int] = []
        self._times: list[int] = []
        for file in files:
            size = time = 0
            with contextlib.suppress(OSError):
                status = os.stat(file)
                size, time = status.st_size, status.st_mtime_ns
            self._sizes.append(size)
            self._times.append(time)
        self.num_bytes = sum(self._sizes)

    def digest(self, is_wanted: Callable[[], bool] = lambda: True) -> str | None:
        """Returns a digest of all content; None once it is no longer wanted."""
        sha = hashlib.sha256(repr(self._sizes).encode())
        for file in self._files:
            with contextlib.suppress(OSError), open(file, "rb", buffering=0) as opened:
                while piece := opened.read(_PIECE_BYTES):
                    if not is_wanted():
                        return None
                    sha.update(piece)
        return f"sha256 {sha.hexdigest()[:32]}"

    def sampled(self) -> str:
        sha = hashlib.sha256(repr(self._sizes).encode())
        ends = list(itertools.accumulate(self._sizes))
        for start, stop in sample_places(self.num_bytes):
            index = bisect.bisect_right(ends, start)
            with (
                contextlib.suppress(OSError),
                open(self._files[index], "rb") as opened,
            ):
                opened.seek(start - (ends[index] - self._sizes[index]))
                sha.update(opened.read(stop - start))
        return f"samples, sha256 {sha.hexdigest()[:32]}"

    def times(self) -> str:
        seconds, nanoseconds = divmod(max(self._times), 10**9)
        newest = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
        text = f"{newest:%Y-%m-%d %H:%M:%S}.{nanoseconds:09d}"
        if len(self._times) == 1:
            return text
        digest = hashlib.sha256(repr(self._times).encode()).hexdigest()
        return f"{text} and before, sha256 {digest[:16]}"
