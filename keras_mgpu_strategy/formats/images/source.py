"""Rows that are image files: row `i` is file `i`, whatever happens to others.

Reading from any row costs the same. A file that fails is retried alone: only its own
fault counts as bad, not a lack of memory or handles. Rows before a bad file come before
its error. Any number of threads may read.
"""

import hashlib
import os
import re
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.digests.code import digest_of_code
from keras_mgpu_strategy.formats.images.contents import BadImage
from keras_mgpu_strategy.formats.images.decoding import Load
from keras_mgpu_strategy.formats.images.form import ImageForm
from keras_mgpu_strategy.formats.images.listing import ImageFiles
from keras_mgpu_strategy.formats.images.reading import ImageReader
from keras_mgpu_strategy.formats.images.scaling import BatchCall
from keras_mgpu_strategy.sources.checks import check_batch_size, check_start
from keras_mgpu_strategy.sources.origins import origin_of_files
from keras_mgpu_strategy.types import InputBatch, Origin, RowMarks

_FIRST_FILES = 4096
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
        self._files = files
        self._image = tf.TensorSpec(form.shape, form.dtype)
        self._load = load
        self._reader = ImageReader(load, self._image)
        self._call = call
        self._skips = skips
        self._settings = settings
        self._missing: set[int] = set()
        self._lock = threading.Lock()

    @property
    def num_rows(self) -> int:
        """Number of files."""
        return len(self._files.names)

    @property
    def spec(self) -> tf.TensorSpec:
        """What is passed to the model; known without reading."""
        if self._call is not None:
            return self._call.spec
        return tf.TensorSpec([None, *self._image.shape], self._image.dtype)

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
        with self._lock:
            missing = np.array([row in self._missing for row in range(start, stop)])
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
                self._remember(start, was_read)
                inputs = self._prepare(images, was_read, start)
                yield InputBatch(start, len(images), inputs)
            if error is not None:
                raise error
            start += len(images)

    def _decoded(
        self, batch_size: int, start: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """In growing groups: a pipeline takes all its paths even for one batch."""
        num_files = max(_FIRST_FILES // batch_size, 1) * batch_size
        while start < self.num_rows:
            paths = self._files.encoded_paths(start, start + num_files)
            yield from self._reader.read(paths, batch_size)
            start += num_files
            num_files *= 2

    def _read_again(
        self, images: np.ndarray, was_read: np.ndarray, start: int
    ) -> tuple[np.ndarray, np.ndarray, ValueError | None]:
        """Reads again what failed; cuts the batch at a file that is an error."""
        images, was_read = images.copy(), was_read.copy()
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

    def _remember(self, start: int, was_read: np.ndarray) -> None:
        """Keeps which rows are missing; one that was repaired since no longer is."""
        with self._lock:
            self._missing.difference_update(range(start, start + len(was_read)))
            self._missing.update((start + np.flatnonzero(~was_read)).tolist())

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
