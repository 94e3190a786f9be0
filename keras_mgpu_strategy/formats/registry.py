"""All file formats: the only list of them and of their suffixes.

Loads neither TensorFlow nor a format's packages: what a row names is imported late.
"""

import dataclasses
import importlib
import pathlib
import re
from typing import TYPE_CHECKING, Any

from keras_mgpu_strategy.formats.images import listing

if TYPE_CHECKING:  # it loads TensorFlow
    from keras_mgpu_strategy.outputs.row_sink import FileFormat


@dataclasses.dataclass(frozen=True, slots=True)
class Format:
    """A file format; classes are `module:class`, in this package after a dot."""

    name: str  # of its class in `mgpu.files`
    pattern: str  # of the names of its files, in lower case
    reader: str
    suffix: str = ""  # of an output; "" if it is never written
    writer: str = ""
    shards: str = ""  # has `check(sharded)`, and `join(sharded, target)` for files
    is_many: bool = False  # reads lists and folders of files too
    is_table: bool = False  # holds columns by name
    is_shared: bool = False  # all shards write into the output itself

    def is_of(self, path: str | pathlib.Path) -> bool:
        """Whether a file name belongs to this format."""
        return re.search(self.pattern, pathlib.Path(path).name.lower()) is not None

    def read(self, x: Any) -> Any:
        """Returns the `FileInput` of a path or paths."""
        return _named(self.reader)(x)

    def shards_module(self) -> Any:
        """The module of `shards`."""
        return _named(self.shards)


def _written(name: str, pattern: str, **flags: bool) -> Format:
    """The row of a format that is written too, whose folder has its name."""
    suffix = folder = f".{name.lower()}"
    reader, writer = f"{folder}.read:{name}", f"{folder}.write:{name}Format"
    return Format(name, pattern, reader, suffix, writer, f"{folder}.shards", **flags)


_SHARD = r"-\d+-of-\d+"

NPY = _written("Npy", r"\.npy\Z")
NPZ = Format("Npz", r"\.npz\Z", ".npy.read:Npz")
PARQUET = _written("Parquet", r"\.(parquet|pq)\Z", is_many=True, is_table=True)
ZARR = _written("Zarr", r"\.zarr\Z", is_shared=True)
CSV = _written("Csv", r"\.csv(\.gz|\.bz2|\.xz|\.zip)?\Z", is_table=True)
TFRECORDS = Format(
    "TFRecords",
    rf"(\.tfrecords?({_SHARD})?|{_SHARD})(\.(gz|gzip|zz|zlib))?\Z",
    ".tfrecords:TFRecords",
    is_many=True,
)
HDF5 = Format("Hdf5", r"\.(h5|hdf5)\Z", ".hdf5:Hdf5")
IMAGES = Format("Images", listing.PATTERN, ".images.input:Images", is_many=True)
FORMATS = [NPY, NPZ, PARQUET, ZARR, CSV, TFRECORDS, HDF5, IMAGES]

WRITERS: dict[str, "FileFormat"] = {}
"""Suffix -> what writes such an output; filled on first use."""


def format_of(path: str | pathlib.Path) -> Format | None:
    """The format of a file or folder by its name; None if unknown."""
    return next((row for row in FORMATS if row.is_of(path)), None)


def output_suffixes() -> tuple[str, ...]:
    """Suffixes of outputs, in lower case."""
    return tuple(row.suffix for row in FORMATS if row.suffix)


def output_format(path: str | pathlib.Path) -> Format:
    """The format of an output by its suffix; a `ValueError` if there is none."""
    suffix = pathlib.Path(path).suffix.lower()
    row = next((row for row in FORMATS if row.suffix and row.suffix == suffix), None)
    if row is None:
        raise ValueError(
            f"{path} is not the name of an output. Expected a name that "
            f"ends in one of {', '.join(output_suffixes())}."
        )
    return row


def writer_of(path: str | pathlib.Path) -> "FileFormat":
    """Returns what writes an output, see `output_format`."""
    row = output_format(path)
    if row.suffix not in WRITERS:
        WRITERS[row.suffix] = _named(row.writer)()
    return WRITERS[row.suffix]


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    found = importlib.import_module(module, __package__)
    return getattr(found, name) if name else found
