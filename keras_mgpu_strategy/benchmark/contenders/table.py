"""Contender names -> how they are made."""

import functools
from collections.abc import Callable

from keras_mgpu_strategy.benchmark.contenders.bare import Limit, StrategyRun
from keras_mgpu_strategy.benchmark.contenders.interface import Contender, Setting
from keras_mgpu_strategy.benchmark.contenders.predicting import (
    KerasPredict,
    KerasStrategyPredict,
    OurMakeParallel,
    OurPredict,
    RayPredict,
)
from keras_mgpu_strategy.benchmark.contenders.processes import Processes
from keras_mgpu_strategy.benchmark.contenders.towers import MakeParallel

CONTENDERS: dict[str, Callable[[Setting], Contender]] = {
    "keras": KerasPredict,
    "keras_strategy": KerasStrategyPredict,
    "make_parallel": MakeParallel,
    "processes": Processes,
    "mgpu_threads": functools.partial(OurPredict, engine="threads"),
    "mgpu_mirrored": functools.partial(OurPredict, engine="mirrored"),
    "mgpu_make_parallel": OurMakeParallel,
    "ray": RayPredict,
    "strategy_run": StrategyRun,
    "limit": Limit,
}
