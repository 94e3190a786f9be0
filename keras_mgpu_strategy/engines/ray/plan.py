"""How many processes to run a model in, and what each of them gets."""

import dataclasses
from collections.abc import Mapping

from keras_mgpu_strategy.batch_size import ceil_div

_INTEGERS = ("num_actors", "replicas_per_device", "cpus_per_actor")


@dataclasses.dataclass(frozen=True)
class RayOptions:
    """How a Predictor with `engine="ray"` is spread over processes.

    Args:
        num_actors: Processes, each with a replica of the model. None: one for each GPU
            that Ray knows of (`replicas_per_device` of them), or one where Ray knows of
            no GPU.
        replicas_per_device: Processes that share one GPU.
        cpus_per_actor: CPU cores that Ray reserves for a process, and threads that an
            op uses in it where it has no GPU.
        ray_address: A running cluster to join, as `ray.init` takes it. None starts Ray
            on this machine, unless this process has joined a cluster already.

    Raises:
        TypeError: A number that is not whole.
        ValueError: A number below 1.
    """

    num_actors: int | None = None
    replicas_per_device: int = 1
    cpus_per_actor: int = 1
    ray_address: str | None = None

    def __post_init__(self) -> None:
        """Checks the values."""
        for name in _INTEGERS:
            value = getattr(self, name)
            if value is None and name == "num_actors":
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name}={value!r}. Expected a whole number from 1 on.")
            if value < 1:
                raise ValueError(f"{name}={value}. Expected a whole number from 1 on.")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What Ray is asked for.

    Args:
        num_actors: Processes.
        gpus_per_actor: GPUs of each; a part of one where several share it.
        cpus_per_actor: CPU cores of each.
    """

    num_actors: int
    gpus_per_actor: float
    cpus_per_actor: int

    @property
    def resources(self) -> dict[str, float]:
        """What one process needs, as Ray's actor options."""
        return {"num_gpus": self.gpus_per_actor, "num_cpus": self.cpus_per_actor}


def make_plan(options: RayOptions, available: Mapping[str, float]) -> Plan:
    """Plans the processes for a cluster.

    Args:
        options: What the user asks for.
        available: Resources of the cluster, as `ray.cluster_resources()` tells them.

    Raises:
        ValueError: The cluster has less than what is asked for.
    """
    gpus, cpus = int(available.get("GPU", 0)), int(available.get("CPU", 0))
    shared = options.replicas_per_device
    if gpus == 0 and shared > 1 and options.num_actors is None:
        raise ValueError(
            f"replicas_per_device={shared}, but Ray knows of no GPU to share. Pass "
            "num_actors, the number of processes."
        )
    num_actors = options.num_actors or max(gpus * shared, 1)
    needed_gpus = ceil_div(num_actors, shared) if gpus else 0
    needed_cpus = num_actors * options.cpus_per_actor
    if needed_gpus > gpus or needed_cpus > cpus:
        raise ValueError(
            f"{num_actors} processes need {needed_gpus} GPUs and {needed_cpus} CPU "
            f"cores, but Ray has {gpus} GPUs and {cpus} cores. Ask for fewer "
            "(num_actors, cpus_per_actor), or join a larger cluster (ray_address)."
        )
    return Plan(num_actors, 1 / shared if gpus else 0, options.cpus_per_actor)
