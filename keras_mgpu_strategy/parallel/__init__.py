"""`make_parallel`: one Keras model that splits each batch over the devices."""

from keras_mgpu_strategy.parallel.making import make_parallel
from keras_mgpu_strategy.parallel.model import ParallelModel

__all__ = ["ParallelModel", "make_parallel"]
