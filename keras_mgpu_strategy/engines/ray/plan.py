"""How many processes run a model, and what each of them gets."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from keras_mgpu_strategy.system.integers import count
from keras_mgpu_strategy.system.tracebacks import short_traceback

# Ray counts GPUs in steps of 0.0001, so three thirds are less than one.
_ROUNDED = 0.01


@short_traceback
@dataclasses.dataclass(frozen=True)
class RayOptions:
    """How a Predictor with `engine="ray"` is spread over processes.

    Args:
        num_actors: Processes, each with a replica of the model. None: one for each GPU
            that Ray knows of (`replicas_per_device` of them); if it knows of none,
            one for each machine.
        replicas_per_device: Processes that share one GPU.
        cpus_per_actor: CPU cores that Ray reserves for a process, and threads that an
            op uses in it if it has no GPU. None: one if it has a GPU, else as many as
            all processes can have.
        ray_address: A running cluster to join, as `ray.init` takes it. None starts Ray
            on this machine, unless this process has joined a cluster already or the
            environment variable RAY_ADDRESS names one.

    Raises:
        TypeError: A number is not an integer.
        ValueError: A number is below 1.
    """

    num_actors: int | None = None
    replicas_per_device: int = 1
    cpus_per_actor: int | None = None
    ray_address: str | None = None

    def __post_init__(self) -> None:
        """Checks the values."""
        count("replicas_per_device", self.replicas_per_device)
        for name in ("num_actors", "cpus_per_actor"):
            if getattr(self, name) is not None:
                count(name, getattr(self, name))


@dataclasses.dataclass(frozen=True)
class ActorPlan:
    """What Ray is asked for; `gpus_per_actor` is a fraction if several share one."""

    num_actors: int
    gpus_per_actor: float
    cpus_per_actor: int

    @property
    def resources(self) -> dict[str, float]:
        """What one process needs, as Ray's actor options."""
        return {"num_gpus": self.gpus_per_actor, "num_cpus": self.cpus_per_actor}

    def fits(self, available: Mapping[str, float]) -> bool:
        """Whether there is enough for one process."""
        return dataclasses.replace(self, num_actors=1).all_fit(available)

    def all_fit(self, available: Mapping[str, float]) -> bool:
        """Whether there is enough for all of them."""
        gpus = self.num_actors * self.gpus_per_actor
        has_gpus = available.get("GPU", 0) >= gpus - _ROUNDED
        cpus = self.num_actors * self.cpus_per_actor
        return has_gpus and available.get("CPU", 0) >= cpus

    @property
    def needs(self) -> str:
        """What one process needs, for messages."""
        cores = f"{self.cpus_per_actor} CPU core{'s' * (self.cpus_per_actor > 1)}"
        gpus = f"{self.gpus_per_actor:.3g} GPU and " if self.gpus_per_actor else ""
        return gpus + cores


def make_plan(options: RayOptions, nodes: Iterable[Mapping[str, Any]]) -> ActorPlan:
    """Plans the processes for the machines that `ray.nodes()` reports."""
    machines, shared = _machines(nodes), options.replicas_per_device
    gpus = sum(gpus for gpus, _ in machines)
    if gpus == 0 and shared > 1:
        raise ValueError(
            f"replicas_per_device={shared}, but Ray knows of no GPU to share. Pass "
            "num_actors, the number of processes, instead."
        )
    # If no machine computes, one process is asked for, and there is no room for it.
    num_actors = options.num_actors or gpus * shared or max(len(machines), 1)
    cpus = 1 if gpus else _equal_share(machines, num_actors)
    plan = ActorPlan(
        num_actors, 1 / shared if gpus else 0, options.cpus_per_actor or cpus
    )
    room = _room(machines, plan)
    if num_actors > room:
        raise ValueError(
            f"{num_actors} processes of {plan.needs} each were asked for, but there "
            f"is room for {room}: Ray has {len(machines)} machine(s) with "
            f"{_listed(machines)}. Ask for fewer (num_actors, cpus_per_actor), or join "
            "a larger cluster (ray_address)."
        )
    return plan


def capacity(nodes: Iterable[Mapping[str, Any]], plan: ActorPlan) -> int:
    """How many processes of a plan the machines can hold, regardless of other users."""
    return _room(_machines(nodes), plan)


def _machines(nodes: Iterable[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """GPUs and CPU cores of each machine that is alive and has any."""
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    pairs = [(int(r.get("GPU", 0)), int(r.get("CPU", 0))) for r in resources]
    return [pair for pair in pairs if any(pair)]


def _room(machines: Iterable[tuple[int, int]], plan: ActorPlan) -> int:
    if not plan.gpus_per_actor:
        return sum(cpus // plan.cpus_per_actor for _, cpus in machines)
    shared = round(1 / plan.gpus_per_actor)
    return sum(
        min(gpus * shared, cpus // plan.cpus_per_actor) for gpus, cpus in machines
    )


def _equal_share(machines: list[tuple[int, int]], num_actors: int) -> int:
    """The most cores for each process such that all have room; at least 1."""
    most = max((cpus for _, cpus in machines), default=1)
    shares = (
        share
        for share in range(most, 0, -1)
        if sum(cpus // share for _, cpus in machines) >= num_actors
    )
    return next(shares, 1)


def _listed(machines: list[tuple[int, int]]) -> str:
    shown = [f"{gpus} GPUs and {cpus} CPU cores" for gpus, cpus in machines[:8]]
    rest = f" and {len(machines) - 8} more" if len(machines) > 8 else ""
    return "; ".join(shown) + rest if shown else "GPUs or CPU cores"
