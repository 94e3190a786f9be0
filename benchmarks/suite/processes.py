"""One process per device, each with Keras `predict` on its share of the rows.

Rows and results pass through files in shared memory, the simplest way to copy each only
once. That time is counted; starting the processes is not.
"""

import contextlib
import multiprocessing
import os
import pathlib
import shutil
import tempfile
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.types import Nest, cut
from suite import child
from suite.interface import Contender, Setting, num_rows

_SHARED_MEMORY = "/dev/shm"
_LEAST_SHARED_BYTES = 2 << 30


class Processes(Contender):
    """A process for each device, started once."""

    def __init__(self, setting: Setting):
        self._batch_size = setting.batch_size
        self._outputs = setting.plain(cut(setting.example, 0, 1), training=False)
        self._folder = pathlib.Path(tempfile.mkdtemp(dir=_folder(), prefix="mgpu-"))
        self._connections: list[Any] = []
        self._processes: list[Any] = []
        started = time.perf_counter()
        try:
            self._start_all(setting)
        except BaseException:
            self.close()
            raise
        self.start_up_seconds = time.perf_counter() - started

    def predict(self, x: Nest) -> Nest:
        """Runs all rows, one contiguous share in each process."""
        total = num_rows(x)
        input_files = tf.nest.map_structure(
            lambda index, array: self._write(f"in-{index}", array),
            _numbered(x),
            x,
        )
        output_files = [
            self._allocate(f"out-{index}", total, leaf)
            for index, leaf in enumerate(tf.nest.flatten(self._outputs))
        ]
        bounds = np.linspace(0, total, len(self._connections) + 1).astype(int)
        for connection, start, stop in zip(
            self._connections, bounds[:-1], bounds[1:], strict=True
        ):
            connection.send(
                (input_files, output_files, int(start), int(stop), self._batch_size)
            )
        self._wait()
        results = [np.load(path) for path in output_files]
        return tf.nest.pack_sequence_as(self._outputs, results)

    def close(self) -> None:
        """Ends the processes and removes their files."""
        for connection in self._connections:
            with contextlib.suppress(OSError):  # its process has ended by itself
                connection.send(None)
        for process in self._processes:
            process.join()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start_all(self, setting: Setting) -> None:
        model_path = self._folder / "model.keras"
        setting.plain.save(model_path)
        for device in setting.devices:
            self._start(str(model_path), device)
        self._wait()

    def _start(self, model_path: str, device: str) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=child.main, args=(theirs, model_path, device), daemon=True
        )
        process.start()
        theirs.close()
        self._connections.append(ours)
        self._processes.append(process)

    def _wait(self) -> None:
        errors = [_answer_of(connection) for connection in self._connections]
        if any(errors):
            raise RuntimeError(next(error for error in errors if error))

    def _write(self, name: str, array: np.ndarray) -> str:
        path = self._folder / f"{name}.npy"
        np.save(path, array)
        return str(path)

    def _allocate(self, name: str, total: int, leaf: Any) -> str:
        path = self._folder / f"{name}.npy"
        shape = (total, *leaf.shape[1:])
        dtype = leaf.dtype.as_numpy_dtype
        np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        return str(path)


def _answer_of(connection: Connection) -> str | None:
    """The text of an error in a process; None if there was none."""
    try:
        return connection.recv()
    except EOFError:
        return "a process ended without an answer"


def _numbered(x: Nest) -> Nest:
    return tf.nest.pack_sequence_as(x, list(range(len(tf.nest.flatten(x)))))


def _folder() -> str:
    """Shared memory if there is enough, otherwise the temporary folder."""
    there = os.path.isdir(_SHARED_MEMORY)
    if there and shutil.disk_usage(_SHARED_MEMORY).free > _LEAST_SHARED_BYTES:
        return _SHARED_MEMORY
    return tempfile.gettempdir()
