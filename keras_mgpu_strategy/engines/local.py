"""A model on the devices of this process."""

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy import models
from keras_mgpu_strategy.compute.step import StepCompiler
from keras_mgpu_strategy.compute.transfers import has_own_memory
from keras_mgpu_strategy.engines.context import Work
from keras_mgpu_strategy.engines.interface import Engine
from keras_mgpu_strategy.engines.local_chunks import LocalChunks
from keras_mgpu_strategy.engines.mirrored import MirroredEngine
from keras_mgpu_strategy.engines.options import Options
from keras_mgpu_strategy.engines.threads import ThreadsEngine
from keras_mgpu_strategy.sources.marks import MarksOf, marks_of
from keras_mgpu_strategy.types import Feeding, Nest, Source

_ENGINES: dict[str, Callable[[Work, StepCompiler], Engine]] = {
    "mirrored": MirroredEngine,
    "threads": lambda work, compiler: ThreadsEngine(work, LocalChunks(work, compiler)),
}


class LocalBackend:
    """A `Backend` of this process.

    Args:
        replicated: The model.
        options: How it runs.
    """

    def __init__(self, replicated: models.ReplicatedModel, options: Options):
        self._replicated = replicated
        self._options = options
        self.compiler = StepCompiler(replicated)
        self.is_remote = False
        self._building = threading.Lock()

    @property
    def input_spec(self) -> Nest | None:
        """What the model declares."""
        return self._replicated.input_spec

    @property
    def floats(self) -> tf.DType:
        """The dtype of floats for a model that declares no inputs."""
        return models.float_dtype_of(self._replicated.model)

    @property
    def feeding(self) -> Feeding:
        """What the model is given of the user's input."""
        return self._replicated.feeding

    def preprocessing(self, raw_spec: Nest) -> models.Preprocessing | None:
        """The model's own, traced again, since its settings may have changed."""
        return self._replicated.preprocessing(raw_spec)

    @property
    def devices(self) -> tuple[str, ...]:
        """Each replica's device."""
        return tuple(self._replicated.strategy.extended.worker_devices)

    @property
    def model(self) -> Any:
        """The model whose variables live on every device."""
        return self._replicated.model

    @property
    def strategy(self) -> Any:
        """The strategy over the devices."""
        return self._replicated.strategy

    @property
    def chunks(self) -> dict[str, int]:
        """Chunks for each device, as in `Work`."""
        return self._options.chunks(on_gpus=self._on_gpus())

    def build(self, example: Nest) -> None:
        """Creates the variables of a model that has none yet."""
        with self._building:
            models.build(self._replicated, example)

    def engine(self, work: Work) -> Engine:
        """The engine of the options."""
        return _ENGINES[self._options.engine](self.fitted(work), self.compiler)

    def fitted(self, work: Work) -> Work:
        """Per-run state with the options that depend on devices and model filled in."""
        return dataclasses.replace(
            work,
            jit_compile=self._uses_xla(),
            may_fall_back=self._options.jit_compile == "auto",
            is_measured=self._on_gpus(),
            **self.chunks,
        )

    def digest(self) -> str:
        """A short hash of what the model computes."""
        return models.digest(self._replicated)

    def marks(self, source: Source, work: Work) -> MarksOf:
        """The marks of the source."""
        del work
        return marks_of(source)

    def _uses_xla(self) -> bool:
        if self._options.jit_compile != "auto":
            return bool(self._options.jit_compile)
        return models.chooses_xla(self._replicated, self.devices)

    def _on_gpus(self) -> bool:
        return all(map(has_own_memory, self.devices))
