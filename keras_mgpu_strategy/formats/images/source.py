"""Rows that are image files: row `i` is file `i`, whatever happens to others.

Decoded in parallel by tf.data, on the CPU, from any row at the same cost. A file that
fails is retried alone: only its own fault counts as bad, not a lack of memory or
handles. Rows before a bad file come before its error. Any number of threads may read.
"""

import atexit
import hashlib
import math
import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.digests.code import digest_of_code
from keras_mgpu_strategy.formats.images.contents import BadImage
from keras_mgpu_strategy.formats.images.decoding import Load
from keras_mgpu_strategy.formats.images.form import ImageForm
from keras_mgpu_strategy.formats.images.listing import ImageFiles
from keras_mgpu_strategy.formats.images.scaling import BatchCall
from keras_mgpu_strategy.sources.checks import check_batch_size, check_start
from keras_mgpu_strategy.sources.origins import origin_of_files
from keras_mgpu_strategy.system.environment import num_cores
from keras_mgpu_strategy.types import InputBatch, Origin, RowMarks

MOST_READ_AHEAD = 128 * 1024 * 1024
_FIRST_FILES, _MOST_FILES = 2**12, 2**16
_NONE_LEFT = np.zeros(0, np.int64), np.zeros(0)  # rows, and their images
_NOT_THE_FILE = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.ResourceExhaustedError,
)


class ImageSource:
    """A `Source` over image files; if it `skips`, a bad file is a missing row."""

    def __init__(
        self,
        files: ImageFiles,
        form: ImageForm,
        load: Load,
        call: BatchCall | None,
        *,
        skips: bool,
        settings: Any,
    ) -> None:
        self._files, self._form, self._load, self._call = files, form, load, call
        self._skips, self._settings = skips, settings
        # Kept with its graph, which takes longer to build than a small pass.
        self._numbered = tf.function(
            lambda row, path: (row, load(path)),
            input_signature=[tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.string)],
            autograph=False,
        )
        self.num_rows = len(files.names)
        rows = tf.TensorSpec([None, *form.shape], form.dtype)
        self.spec = rows if call is None else call.spec
        # Each thread writes its own rows.
        self._missing = np.zeros(self.num_rows, bool)

    def origin(self) -> Origin:
        """What distinguishes the files, and how images are prepared, from others."""
        files = self._files
        names = hashlib.sha256(os.fsencode("\0".join(files.names))).hexdigest()
        about = {
            "files of the input": f"{self.num_rows} images, sha256 {names[:16]}",
            "how it is read": digest_of_code(self._settings),
        }
        return origin_of_files([files.path(row) for row in range(self.num_rows)], about)

    def marks(self, start: int, stop: int) -> RowMarks:
        """Returns the names of rows that were read, and which are missing."""
        missing = self._missing[start:stop].copy()
        names = self._files.shown_names(start, stop)
        return RowMarks(names, missing if missing.any() else None)

    def batches(self, batch_size: int, start: int = 0) -> Iterator[InputBatch]:
        """Yields batches of `batch_size` rows, the last one with the rest."""
        check_batch_size(batch_size, self)
        check_start(start, self.num_rows)
        return self._read(batch_size, start)

    def _read(self, batch_size: int, start: int) -> Iterator[InputBatch]:
        for images, was_read in self._decoded(batch_size, start):
            error = None
            if not was_read.all():
                images, was_read, error = self._read_again(images, was_read, start)
            if len(images):
                # A file that was repaired since is no longer missing.
                self._missing[start : start + len(images)] = ~was_read
                inputs = self._prepare(images, was_read, start)
                yield InputBatch(start, len(images), inputs)
            if error is not None:
                raise error
            start += len(images)

    def _decoded(
        self, batch_size: int, start: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches with zeros for files that fail, and which of the files were read."""
        # In growing groups: a pipeline takes all its paths even for one batch. Not all
        # at once: if all are bad, it is read to its end before there is a batch.
        num_files = max(_FIRST_FILES // batch_size, 1) * batch_size
        while start < self.num_rows:
            stop = min(start + num_files, self.num_rows)
            yield from self._decoded_group(batch_size, start, stop)
            start = stop
            num_files *= 2 if num_files < _MOST_FILES else 1

    def _decoded_group(
        self, batch_size: int, start: int, end: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        paths = self._files.encoded_paths(start, end)
        batches = self._pipeline(paths, batch_size, start)
        decodable = (tuple(map(np.asarray, batch)) for batch in batches)
        rows, images = next(decodable, _NONE_LEFT)
        for first in range(start, end, batch_size):
            stop = min(first + batch_size, end)
            if len(rows) == stop - first and rows[-1] < stop:  # no copy if none fails
                yield images, np.ones(len(rows), bool)
                rows, images = next(decodable, _NONE_LEFT)
                continue
            shape = stop - first, *self._form.shape
            batch = np.zeros(shape, self._form.dtype.as_numpy_dtype)
            was_read = np.zeros(stop - first, bool)
            while len(rows) and rows[0] < stop:
                count = np.searchsorted(rows, stop)
                places = rows[:count] - first
                batch[places], was_read[places] = images[:count], True
                rows, images = rows[count:], images[count:]
                if not len(rows):
                    rows, images = next(decodable, _NONE_LEFT)
            yield batch, was_read

    def _pipeline(self, paths: list[bytes], batch_size: int, start: int) -> Any:
        """Batches of the images that can be decoded, in order, after their rows."""
        options = tf.data.Options()
        # The autotuner's thread sleeps, and ending the iterator waits for it.
        options.autotune.enabled = False
        options.deterministic = True
        # Of its own: it never waits for a model on the CPU that waits for it.
        options.threading.private_threadpool_size = num_cores()
        # Otherwise the images land on the first GPU if that is the default.
        with tf.device("CPU:0"):
            files = tf.data.Dataset.from_tensor_slices(paths).enumerate(start)
            images = files.map(self._numbered, num_cores(), deterministic=True)
            batches = images.ignore_errors().batch(batch_size)
            batches = batches.prefetch(num_batches_ahead(self._form, batch_size))
            return _until_exit(iter(batches.with_options(options)))

    def _read_again(
        self, images: np.ndarray, was_read: np.ndarray, start: int
    ) -> tuple[np.ndarray, np.ndarray, ValueError | None]:
        """Reads again what failed; cuts the batch at a file that is an error."""
        for index in np.flatnonzero(~was_read).tolist():
            row = start + index
            try:
                with tf.device("CPU:0"):
                    [path] = self._files.encoded_paths(row, row + 1)
                    images[index] = np.asarray(self._load(tf.constant(path)))
                was_read[index] = True
            except _NOT_THE_FILE:
                raise
            except (BadImage, tf.errors.OpError) as error:
                if not self._skips:
                    bad = self._bad_file(row, error)
                    return images[:index], was_read[:index], bad
        return images, was_read, None

    def _bad_file(self, row: int, cause: BadImage | tf.errors.OpError) -> ValueError:
        message = str(cause if isinstance(cause, BadImage) else cause.message)
        reason = re.sub(r"\{\{.*?\}\} ?| \[Op:.*", "", message).rstrip(".")
        error = ValueError(
            f"Row {row}: the image file {self._files.path(row)!r} cannot be decoded: "
            f"{reason}. Replace or remove it, or pass on_bad_file='skip' to mark such "
            "rows as missing."
        )
        error.__cause__ = cause
        return error

    def _prepare(
        self, images: np.ndarray, was_read: np.ndarray, start: int
    ) -> np.ndarray:
        """Applies the user's function, which is never given a placeholder image."""
        if self._call is None:
            return images
        rows = (start + np.flatnonzero(was_read)).tolist()
        if was_read.all():
            return self._call(images.copy(), rows)
        prepared = self._call.zeros(len(images))
        if rows:
            prepared[was_read] = self._call(images[was_read], rows)
        return prepared


def num_batches_ahead(form: ImageForm, batch_size: int) -> int:
    """Batches that are kept decoded while the model computes."""
    batch_bytes = batch_size * math.prod(form.shape) * form.dtype.size
    return 2 if 2 * batch_bytes <= MOST_READ_AHEAD else 1


def _until_exit(iterator: Iterator[Any]) -> Iterator[Any]:
    """Releases an iterator at exit: ending it later could wait for Python forever."""
    held = [iterator]
    del iterator
    atexit.register(held.clear)
    try:
        while held:
            try:
                item = next(held[0])
            except StopIteration:
                return
            yield item
    finally:
        held.clear()
        atexit.unregister(held.clear)
