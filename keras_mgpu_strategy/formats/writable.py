"""The kinds of files that results can be written to, by the suffix of their names."""

import pathlib

from keras_mgpu_strategy.formats.csv.write import CsvFormat
from keras_mgpu_strategy.formats.npy.write import NpyFormat
from keras_mgpu_strategy.formats.parquet.write import ParquetFormat
from keras_mgpu_strategy.formats.zarr.write import ZarrFormat
from keras_mgpu_strategy.outputs.interface import FileFormat

FORMATS: dict[str, FileFormat] = {
    ".npy": NpyFormat(),
    ".parquet": ParquetFormat(),
    ".zarr": ZarrFormat(),
    ".csv": CsvFormat(),
}


def format_of(path: str | pathlib.Path) -> FileFormat:
    """Returns the kind of file that a name's suffix stands for, in any case.

    Raises:
        ValueError: There is none.
    """
    suffix = pathlib.Path(path).suffix.lower()
    if suffix not in FORMATS:
        known = ", ".join(FORMATS)
        raise ValueError(
            f"{path} does not tell what kind of file to write. Expected a name that "
            f"ends in one of {known}."
        )
    return FORMATS[suffix]


def shards_share(path: pathlib.Path) -> bool:
    """Whether all shards write into the output itself, at the same time."""
    return path.suffix.lower() == ".zarr"
