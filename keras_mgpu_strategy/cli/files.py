"""The files of the command line, checked before TensorFlow is loaded.

Guarantees:

* Arrays are opened as memory maps; nothing in a file is ever unpickled.
* Nothing is written.
"""

import itertools
import os
import pathlib
from collections.abc import Collection, Sequence

import numpy as np

from keras_mgpu_strategy.formats import registry
from keras_mgpu_strategy.formats.npy.header import open_mapped
from keras_mgpu_strategy.formats.registry import IMAGES, PARQUET

_ROWS_AT_A_TIME = 2**16


def open_rows(path: pathlib.Path) -> np.ndarray:
    """Opens a `.npy` file of rows.

    Returns:
        A read-only array of shape `(rows, ...)`, read from disk as it is used.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not a `.npy` file, is truncated, or holds no rows.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. Check the path.")
    try:
        array = open_mapped(path)
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


def check_inputs(paths: Sequence[pathlib.Path]) -> int | None:
    """Checks what can be checked about the inputs.

    Returns:
        The number of rows of a `.npy` file; None for others.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: It is a `.npy` file that cannot be read, or there are several inputs
            of a format that is read one at a time.
    """
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(
                f"There is no file or folder {path}. Check the path."
            )
    if len(paths) > 1:
        kinds = {registry.format_of(path) for path in paths}
        if len(kinds) > 1 or not kinds <= {PARQUET, IMAGES}:
            raise ValueError(
                f"{len(paths)} inputs received ({', '.join(map(str, paths[:10]))}). "
                "Expected one, or several Parquet files or images, all of one kind."
            )
        return None
    is_npy = paths[0].suffix.lower() == ".npy" and paths[0].is_file()
    return len(open_rows(paths[0])) if is_npy else None


def reader_of(
    path: pathlib.Path, table_flags: Collection[str], image_flags: Collection[str]
) -> str | None:
    """Returns the class of `mgpu.files` that takes the flags for an input.

    Args:
        path: The input, or the first of several.
        table_flags: Names of the given flags for tables.
        image_flags: Names of the given flags for images.

    Returns:
        The name of the class; None if no such flag was given.

    Raises:
        ValueError: The input is not of the format that a flag is for.
    """
    kind = registry.format_of(path)
    table = kind.name if kind is not None and kind.is_table else None
    given = sorted(table_flags)
    if image_flags:
        is_folder = path.is_dir() and table is None and path.suffix != ".zarr"
        is_images = is_folder or kind is IMAGES
        _check_kind(is_images, sorted(image_flags), "a folder of images", path)
        _check_kind(not given, given, "a Parquet or CSV file", path)
        return "Images"
    if "read_options" in given:
        _check_kind(table == "Csv", ["read_options"], "a CSV file", path)
    if given:
        is_table = table is not None or path.is_dir()
        _check_kind(is_table, given, "a Parquet or CSV file", path)
        return table or "Parquet"
    return None


def has_images(path: pathlib.Path) -> bool:
    """Whether an input is an image, or a folder with one, however deep."""
    inside = (name for _, _, files in os.walk(path) for name in files)
    names = itertools.chain([path.name], inside)
    return any(IMAGES.is_of(name) for name in names)


def open_labels(path: pathlib.Path, num_rows: int | None) -> np.ndarray:
    """Opens a `.npy` file of the true class of each row.

    Args:
        path: The file.
        num_rows: How many rows there are; None if not known yet.

    Returns:
        An array of shape `(num_rows,)`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It does not hold one integer per row.
    """
    labels = open_rows(path)
    expected = len(labels) if num_rows is None else num_rows
    shapes = ((expected,), (expected, 1))
    if labels.shape not in shapes or labels.dtype.kind not in "iub":
        raise ValueError(
            f"{path} holds {labels.dtype} of shape {labels.shape}. Expected one class "
            f"index per input row: integers of shape ({expected},)."
        )
    return labels.reshape(expected)


def check_output(path: pathlib.Path, read: Sequence[pathlib.Path]) -> None:
    """Checks that the output is not also an input.

    Args:
        path: The output.
        read: Files and folders that are read.

    Raises:
        ValueError: It is one of them, or inside one.
    """
    places = (path.resolve(), *path.resolve().parents)
    for other in read:
        if other.resolve() == places[0]:
            raise ValueError(f"--output={path} is also read. Give another path.")
        if other.resolve() in places:
            raise ValueError(
                f"--output={path} lies in {other}, which is read. Give a path outside "
                "of it."
            )


def count_right(outputs: np.ndarray, labels: np.ndarray) -> int:
    """Counts the rows whose class is the true one, some rows at a time.

    Args:
        outputs: Class indices of shape `(rows,)` or `(rows, 1)`, or probabilities of
            shape `(rows, classes)`, where one column stands for two classes. Rows with
            a NaN have no class and do not count.
        labels: Class indices of shape `(rows,)`.

    Raises:
        ValueError: Another shape, or another number of rows.
    """
    if outputs.dtype.kind not in "biuf":
        raise ValueError(
            f"No accuracy: the output was written, but it holds {outputs.dtype}, and "
            "--labels expects class indices or probabilities."
        )
    if outputs.ndim not in (1, 2):
        raise ValueError(
            f"No accuracy: the output was written, but it has shape {outputs.shape}, "
            f"and --labels expects one class per row."
        )
    if len(outputs) != len(labels):
        raise ValueError(
            f"No accuracy: the output was written and has {len(outputs)} rows, but "
            f"--labels has {len(labels)}. Expected one class per row."
        )
    starts = range(0, len(labels), _ROWS_AT_A_TIME)
    parts = [slice(start, start + _ROWS_AT_A_TIME) for start in starts]
    right = [_classes_of(outputs[part]) == labels[part] for part in parts]
    return sum(int(np.count_nonzero(part)) for part in right)


def _classes_of(outputs: np.ndarray) -> np.ndarray:
    """The class index of each row; -1 if there is none."""
    columns = outputs[:, np.newaxis] if outputs.ndim == 1 else outputs
    if columns.dtype.kind in "iu":
        return columns[:, 0]
    classes = columns.argmax(axis=1)
    if columns.shape[1] == 1:
        classes = (columns[:, 0] > 0.5).astype(np.int64)
    return np.where(np.isnan(columns).any(axis=1), -1, classes)


def _check_kind(
    fits: bool, given: list[str], expected: str, path: pathlib.Path
) -> None:
    if not fits:
        named = ", ".join(f"--{name}" for name in given)
        raise ValueError(
            f"{named} received for the input {path}, expected {expected}. Leave out "
            f"{'it' if len(given) == 1 else 'them'}."
        )
