"""Files and folders as inputs of every predict method.

Guarantee: rows are read as needed, so files may be larger than memory.
"""

from keras_mgpu_strategy.formats.csv.read import Csv
from keras_mgpu_strategy.formats.file_source import FileInput
from keras_mgpu_strategy.formats.hdf5 import Hdf5
from keras_mgpu_strategy.formats.images.input import Images
from keras_mgpu_strategy.formats.npy.read import Npy, Npz
from keras_mgpu_strategy.formats.parquet.read import Parquet
from keras_mgpu_strategy.formats.tfrecords import TFRecords
from keras_mgpu_strategy.formats.zarr.read import Zarr

__all__ = [
    "Csv",
    "FileInput",
    "Hdf5",
    "Images",
    "Npy",
    "Npz",
    "Parquet",
    "TFRecords",
    "Zarr",
]
