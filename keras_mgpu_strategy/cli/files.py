"""Models and files, checked before TensorFlow loads; none is unpickled."""

import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from keras_mgpu_strategy.cli.run import IMAGE_FLAGS, TABLE_FLAGS
from keras_mgpu_strategy.formats import registry
from keras_mgpu_strategy.formats.npy.header import open_mapped
from keras_mgpu_strategy.formats.registry import CSV, IMAGES, NPY, PARQUET, ZARR


def check_models(paths: Sequence[pathlib.Path], loading: Mapping[str, Any]) -> None:
    """Checks that they exist, and that there is something to combine."""
    _check_exist(paths, "model")
    if "combine" in loading and len(paths) == 1 and "views" not in loading:
        raise ValueError(
            f"--combine={loading['combine']} with one model, {paths[0]}. Give several, "
            'such as a.keras,b.keras or "m*.keras", or --views, or leave it out.'
        )


def open_rows(path: pathlib.Path) -> np.ndarray:
    """Opens a `.npy` file of rows: a read-only array, read from disk as it is used."""
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
    """Checks what can be checked; returns the number of rows if they are a `.npy`."""
    _check_exist(paths, "file or folder")
    kinds = {registry.format_of(path) for path in paths}
    if len(paths) > 1 and (len(kinds) > 1 or not kinds <= {PARQUET, IMAGES}):
        are_models = any(path.suffix == ".keras" for path in paths)
        hint = ' Name several models as a.keras,b.keras or in quotes as "m*.keras".'
        raise ValueError(
            f"{len(paths)} inputs received ({', '.join(map(str, paths[:10]))}). "
            "Expected one, or several Parquet files or images, all of one kind."
            f"{hint if are_models else ''}"
        )
    return len(open_rows(paths[0])) if kinds == {NPY} and paths[0].is_file() else None


def reader_of(path: pathlib.Path, given: Collection[str]) -> str | None:
    """Returns the class of `mgpu.files` that takes the flags given; None if none."""
    kind = registry.format_of(path)
    table = kind if kind is not None and kind.is_table else None
    is_folder = path.is_dir() and table is None
    has_images = kind is IMAGES or (is_folder and kind is not ZARR)
    for_images = not {*IMAGE_FLAGS}.isdisjoint(given)
    has_columns = (table is not None or is_folder) and not for_images
    for names, fits, expected in (
        (IMAGE_FLAGS, has_images, "a folder of images"),
        (("read_options",), kind is CSV, "a CSV file"),
        (TABLE_FLAGS, has_columns, "a Parquet or CSV file"),
    ):
        wrong = [f"--{name}" for name in sorted({*names}.intersection(given))]
        if wrong and not fits:
            raise ValueError(
                f"{', '.join(wrong)} received for the input {path}, expected "
                f"{expected}. Leave {'it' if len(wrong) == 1 else 'them'} out."
            )
    if for_images:
        return IMAGES.name
    return (table or PARQUET).name if given else None


def check_labels(path: pathlib.Path, num_rows: int | None) -> None:
    """Checks what can be checked of a file of labels for so many rows."""
    _check_exist([path], "file")
    if registry.format_of(path) is not NPY or not path.is_file():
        return
    labels = open_rows(path)
    if num_rows is not None and len(labels) != num_rows:
        raise ValueError(
            f"{path} holds {len(labels)} rows. Expected one label per input row: "
            f"{num_rows}."
        )


def check_output(path: pathlib.Path, read: Sequence[pathlib.Path]) -> None:
    """Checks that the output is none of the paths that are read, nor inside one."""
    for other in read:
        if path.resolve().is_relative_to(other.resolve()):
            raise ValueError(
                f"--output={path} is, or is inside, {other}, which is read. Give "
                "another path."
            )


def _check_exist(paths: Sequence[pathlib.Path], what: str) -> None:
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"There is no {what} {path}. Check the path.")
