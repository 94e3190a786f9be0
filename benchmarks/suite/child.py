"""The program of one process of the contender with one process per device."""

from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def main(connection: Connection, model_path: str, device: str) -> None:
    """Loads the model, then answers requests one by one until None arrives.

    A request is `(nest of input paths, output paths, start, stop, batch)`. Rows `start`
    to `stop` are predicted and written in place. The answer, like the first one, sent
    after loading, is None or the text of an error.
    """
    model = _reported(connection, _load, model_path, device)
    while model is not None and (request := connection.recv()) is not None:
        _reported(connection, _answer, model, *request)


def _reported(
    connection: Connection, function: Callable[..., Any], *arguments: Any
) -> Any:
    """Calls a function and reports the outcome to the parent."""
    try:
        result = function(*arguments)
    except Exception as error:  # noqa: BLE001 - raised again by the parent
        connection.send(f"{type(error).__name__}: {error}")
        return None
    connection.send(None)
    return result


def _load(model_path: str, device: str) -> Any:
    _keep_one_device(device)
    return keras.models.load_model(model_path, compile=False)


def _keep_one_device(device: str) -> None:
    """Hides all other devices; takes a full name, as in a strategy."""
    kind, index = device.rsplit(":", 2)[-2:]
    gpus = tf.config.list_physical_devices("GPU") if kind == "GPU" else []
    mine = gpus[int(index) : int(index) + 1]
    tf.config.set_visible_devices(mine, "GPU")
    for gpu in mine:
        tf.config.experimental.set_memory_growth(gpu, True)
    if kind == "CPU":
        tf.config.threading.set_intra_op_parallelism_threads(1)


def _answer(
    model: Any,
    input_files: Any,
    output_files: list[str],
    start: int,
    stop: int,
    batch_size: int | None,
) -> None:
    inputs = tf.nest.map_structure(
        lambda path: np.load(path, mmap_mode="r")[start:stop], input_files
    )
    results = model.predict(inputs, batch_size=batch_size, verbose=0)
    for path, result in zip(output_files, tf.nest.flatten(results), strict=True):
        np.load(path, mmap_mode="r+")[start:stop] = result
