"""A model in several processes, on this machine or on a cluster."""

import dataclasses
from typing import NoReturn

import tensorflow as tf

from keras_mgpu_strategy.engines.context import Context
from keras_mgpu_strategy.engines.interface import Engine
from keras_mgpu_strategy.engines.options import Options
from keras_mgpu_strategy.engines.ray.actors import Actors
from keras_mgpu_strategy.engines.ray.chunks import RemoteChunks
from keras_mgpu_strategy.engines.ray.cluster import connect, wait_for_room
from keras_mgpu_strategy.engines.ray.model_file import ModelFile
from keras_mgpu_strategy.engines.ray.pickling import pack
from keras_mgpu_strategy.engines.ray.plan import RayOptions, make_plan
from keras_mgpu_strategy.engines.threads import ThreadsEngine
from keras_mgpu_strategy.system.messages import warn
from keras_mgpu_strategy.types import Nest


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
        self._actors = Actors(ray, plan, sum(self._chunks.values()), arguments)
        self.close = self._actors.close
        about = self._actors.abouts[0]
        self.input_spec, self.floats = about.input_spec, about.floats
        self.feeding = about.feeding
        self.is_remote = True
        self._digest: str | None = None

    def preprocessing(self, raw_spec: Nest) -> None:
        """None: each process preprocesses the rows that it runs."""
        del raw_spec

    @property
    def devices(self) -> tuple[str, ...]:
        """Machine, process and device of each replica."""
        return tuple(map(str, self._actors.abouts))

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
            self._actors.build(example)

    def engine(self, context: Context) -> Engine:
        """Threads that each wait for one process."""
        self._actors.refill()
        context = dataclasses.replace(context, **self._chunks)
        return ThreadsEngine(context, RemoteChunks(self._actors, context))

    def digest(self) -> str:
        """A short hash of what the model computes."""
        if self._digest is None:
            what = "Computing the digest of the model"
            self._digest = str(self._actors.call(0, "digest", what=what))
        return self._digest


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
