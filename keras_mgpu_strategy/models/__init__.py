"""Models on every replica: read from disk, or rebuilt from one in memory."""

from keras_mgpu_strategy.models.compile_settings import compiled_for_xla
from keras_mgpu_strategy.models.custom_objects import custom_objects_of
from keras_mgpu_strategy.models.digest import digest
from keras_mgpu_strategy.models.libraries import layers_of
from keras_mgpu_strategy.models.mirrored import build, replicate
from keras_mgpu_strategy.models.mirroring import strategy_of
from keras_mgpu_strategy.models.precision import PRECISIONS
from keras_mgpu_strategy.models.read import read
from keras_mgpu_strategy.models.replicated import ReplicatedModel
from keras_mgpu_strategy.models.specs import float_dtype_of
from keras_mgpu_strategy.models.state import copy_variables
from keras_mgpu_strategy.models.xla import chooses_xla

__all__ = [
    "PRECISIONS",
    "ReplicatedModel",
    "build",
    "chooses_xla",
    "compiled_for_xla",
    "copy_variables",
    "custom_objects_of",
    "digest",
    "float_dtype_of",
    "layers_of",
    "read",
    "replicate",
    "strategy_of",
]
