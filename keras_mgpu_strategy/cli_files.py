"""The files of the command line: checked before work, written whole.

Guarantees:

* Arrays are opened as memory maps; nothing in a file is ever unpickled.
* An output file is written under another name in its folder, then renamed.
"""

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

_SUFFIXES = (".npy", ".npz")


def open_rows(path: pathlib.Path) -> np.ndarray:
    """Opens a `.npy` file of rows.

    Returns:
        A read-only array of shape `(rows, ...)`, read from disk as it is used.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no `.npy` file, cut short, or holds no rows.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:
        raise ValueError(
            f"{path} cannot be read as a .npy file of plain numbers or strings: "
            f"{error} Write it with numpy.save."
        ) from error
    if array.ndim == 0:
        raise ValueError(
            f"{path} holds a single value. Expected an array of shape (rows, ...)."
        )
    return array


def open_labels(path: pathlib.Path, num_rows: int) -> np.ndarray:
    """Opens a `.npy` file of the true class of each row.

    Returns:
        An array of shape `(num_rows,)`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It does not hold one whole number per row.
    """
    labels = open_rows(path)
    if (
        labels.shape not in ((num_rows,), (num_rows, 1))
        or labels.dtype.kind not in "iub"
    ):
        raise ValueError(
            f"{path} holds {labels.dtype} of shape {labels.shape}. Expected one class "
            f"index per input row: integers of shape ({num_rows},)."
        )
    return labels.reshape(num_rows)


def check_output(
    path: pathlib.Path, *, overwrite: bool, read: Sequence[pathlib.Path]
) -> None:
    """Checks that a result can be written, before it is computed.

    Args:
        path: The file to write.
        overwrite: Whether the file may exist.
        read: Files that are read, and must not be written.

    Raises:
        FileNotFoundError: Its folder does not exist.
        FileExistsError: The file exists.
        PermissionError: Its folder cannot be written.
        ValueError: It has another suffix, is a folder, or is one of `read`.
    """
    if path.suffix not in _SUFFIXES:
        raise ValueError(f"--output={path} does not end in .npy or .npz.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} for --output.")
    if path.is_dir():
        raise ValueError(f"--output={path} is a folder. Expected a file.")
    if path.resolve() in {other.resolve() for other in read}:
        raise ValueError(f"--output={path} is also read. Give another file.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists. Give --overwrite to replace it.")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"The folder {path.parent} cannot be written.")


def save_outputs(path: pathlib.Path, outputs: Any) -> None:
    """Writes results to a `.npy` file, or by name to a `.npz` file.

    Args:
        path: The file to write; replaced if it exists.
        outputs: An array, or dicts, lists and tuples of arrays.
    """
    named = dict(_named("output", outputs))
    scratch = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(scratch, "xb") as file:
            _write(file, path.suffix, named)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def classes_of(outputs: np.ndarray) -> np.ndarray:
    """Returns the class index of each row.

    Args:
        outputs: Class indices of shape `(rows,)` or `(rows, 1)`, or probabilities of
            shape `(rows, classes)`, where one column stands for two classes.

    Raises:
        ValueError: Another shape.
    """
    if outputs.ndim not in (1, 2):
        raise ValueError(
            f"No accuracy: the output was written, but it has shape {outputs.shape}, "
            f"and --labels expects one class per row."
        )
    columns = outputs[:, np.newaxis] if outputs.ndim == 1 else outputs
    if outputs.dtype.kind in "iu":
        return columns[:, 0]
    if columns.shape[1] == 1:
        return (columns[:, 0] > 0.5).astype(np.int64)
    return columns.argmax(axis=1)


def _named(name: str, outputs: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Flat names of nested results: `output`, `output_0`, or a dict's own keys."""
    if isinstance(outputs, dict):
        for key, value in outputs.items():
            yield from _named(str(key), value)
    elif isinstance(outputs, list | tuple):
        for index, value in enumerate(outputs):
            yield from _named(f"{name}_{index}", value)
    else:
        yield name, np.asarray(outputs)


def _write(file: BinaryIO, suffix: str, named: dict[str, np.ndarray]) -> None:
    if suffix == ".npz":
        np.savez(file, **named)  # pyright: ignore[reportArgumentType]
    else:
        (array,) = named.values()
        np.save(file, array, allow_pickle=False)
