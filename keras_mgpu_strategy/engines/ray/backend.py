"""A model in several processes, on this machine or on a cluster."""

import dataclasses
from typing import NoReturn

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.engines.context import Work
from keras_mgpu_strategy.engines.interface import Engine
from keras_mgpu_strategy.engines.options import Options
from keras_mgpu_strategy.engines.ray.actors import Fleet
from keras_mgpu_strategy.engines.ray.chunks import RemoteChunks
from keras_mgpu_strategy.engines.ray.cluster import connect, wait_for_room
from keras_mgpu_strategy.engines.ray.model_file import ModelFile
from keras_mgpu_strategy.engines.ray.pickling import pack
from keras_mgpu_strategy.engines.ray.plan import RayOptions, make_plan
from keras_mgpu_strategy.engines.threads import ThreadsEngine
from keras_mgpu_strategy.sources.marks import MarksOf, marks_of
from keras_mgpu_strategy.system.caller import warn
from keras_mgpu_strategy.types import Feeding, Nest, RowMarks, Source


class RayBackend:
    """A `Backend` of one process per device.

    Args:
        model: The model, packed.
        options: How it runs.
        spread: How it is spread over processes.

    Raises:
        ImportError: Ray is not installed.
        ValueError: The cluster has less than what is asked for, or the model cannot be
            read.
    """

    def __init__(self, model: ModelFile, options: Options, spread: RayOptions):
        _leave_gpu_memory()
        ray = connect(spread.ray_address)
        plan = make_plan(spread, ray.nodes())
        wait_for_room(ray, plan)
        self._chunks = options.chunks(on_gpus=plan.gpus_per_actor > 0)
        inner = dataclasses.replace(options, engine="threads", profile=None)
        arguments = (ray.put(pack(model)), inner, plan.cpus_per_actor)
        self._fleet = Fleet(ray, plan, sum(self._chunks.values()), arguments)
        self._digest: str | None = None
        self.is_remote = True

    @property
    def input_spec(self) -> Nest | None:
        """What the model declares."""
        return self._fleet.abouts[0].input_spec

    @property
    def floats(self) -> tf.DType:
        """The dtype of floats for a model that declares no inputs."""
        return self._fleet.abouts[0].floats

    @property
    def feeding(self) -> Feeding:
        """What the model is given of the user's input."""
        return self._fleet.abouts[0].feeding

    def preprocessing(self, raw_spec: Nest) -> None:
        """None: each process preprocesses the rows that it runs."""
        del raw_spec

    @property
    def devices(self) -> tuple[str, ...]:
        """Machine, process and device of each replica."""
        return tuple(map(str, self._fleet.abouts))

    @property
    def model(self) -> NoReturn:
        """The model is in other processes."""
        raise AttributeError(
            'With engine="ray" the model lives in other processes. Load it once more '
            "with keras.models.load_model to look at it."
        )

    @property
    def strategy(self) -> NoReturn:
        """Each process has a strategy of its own."""
        raise AttributeError('With engine="ray" no strategy spans the processes.')

    def build(self, example: Nest) -> None:
        """Creates the variables of a model that has none yet."""
        if self.input_spec is None:
            self._fleet.build(example)

    def engine(self, work: Work) -> Engine:
        """Threads that each wait for one process."""
        self._fleet.refill()
        work = dataclasses.replace(work, **self._chunks)
        return ThreadsEngine(work, RemoteChunks(self._fleet, work))

    def digest(self) -> str:
        """A short hash of what the model computes."""
        if self._digest is None:
            what = "Computing the digest of the model"
            self._digest = str(self._fleet.call(0, "digest", what=what))
        return self._digest

    def marks(self, source: Source, work: Work) -> MarksOf:
        """The marks of the source, with what the processes could not read."""
        marks_here, missing = marks_of(source), work.missing

        def marks(start: int, stop: int) -> RowMarks:
            known = marks_here(start, stop)
            rows = [row in missing for row in range(start, stop)] if missing else None
            if rows is None or not any(rows):
                return known
            return dataclasses.replace(known, missing=np.array(rows))

        return marks

    def close(self) -> None:
        """Ends the processes."""
        self._fleet.close()


def _leave_gpu_memory() -> None:
    """Keeps TensorFlow in this process, which runs no model, off the GPUs' memory."""
    try:
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:
        warn(
            "TensorFlow has started in this process and holds the memory of its GPUs, "
            'which the processes of engine="ray" need. Make the Predictor first, from '
            "a file, or call tf.config.experimental.set_memory_growth before.",
            RuntimeWarning,
        )
