"""Files and folders as inputs of every predict method.

Guarantee: rows are read as they are needed, so that files may be larger than memory.
"""

from keras_mgpu_strategy.inputs.files.csv import Csv
from keras_mgpu_strategy.inputs.files.hdf5 import Hdf5
from keras_mgpu_strategy.inputs.files.images import Images
from keras_mgpu_strategy.inputs.files.interface import FileInput
from keras_mgpu_strategy.inputs.files.npy import Npy
from keras_mgpu_strategy.inputs.files.npz import Npz
from keras_mgpu_strategy.inputs.files.parquet import Parquet
from keras_mgpu_strategy.inputs.files.tfrecords import TFRecords
from keras_mgpu_strategy.inputs.files.zarr import Zarr

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
