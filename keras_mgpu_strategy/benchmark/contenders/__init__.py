"""Ways to predict that are measured against each other."""

from keras_mgpu_strategy.benchmark.contenders.interface import Contender, Setting
from keras_mgpu_strategy.benchmark.contenders.table import CONTENDERS

__all__ = ["CONTENDERS", "Contender", "Setting"]
