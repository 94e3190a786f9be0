"""The processes of a Predictor: started, replaced when they die, ended with it.

Guarantees:

* There are as many processes as asked for, or an error says why not.
* A process that died is replaced; where the cluster has no room for another any more,
  a warning says so and the others do its work.
* When the fleet is closed or forgotten, its processes end.
"""

import threading
import warnings
import weakref
from typing import Any

from keras_mgpu_strategy.engines.ray.plan import Plan
from keras_mgpu_strategy.engines.ray.worker import About, Worker
from keras_mgpu_strategy.types import Nest

_START_SECONDS = 600
_REPLACE_SECONDS = 90


class Fleet:
    """Processes that each hold a replica.

    Args:
        ray: The package, connected.
        plan: How many, and what each gets.
        max_concurrency: Calls that a process works on at a time.
        arguments: Of `Worker`; the model as a reference to Ray's store.

    Raises:
        RuntimeError: They could not be started in time.
    """

    def __init__(
        self, ray: Any, plan: Plan, max_concurrency: int, arguments: tuple[Any, ...]
    ):
        self._ray = ray
        self._plan = plan
        self._arguments = arguments
        self._example: Nest = None
        self._lock = threading.Lock()
        # Retries are ours: Ray's own would run a chunk that kills its process for ever.
        self._options = plan.resources | {
            "max_concurrency": max_concurrency,
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        self._actors: list[Any] = [self._start() for _ in range(plan.num_actors)]
        self._finalizer = weakref.finalize(self, _end, ray, self._actors)
        self.abouts: list[About] = self._wait_for_all()

    def actor(self, replica: int) -> Any:
        """The process of a replica; another one where it could not be replaced."""
        with self._lock:
            alive = [actor for actor in self._actors if actor is not None]
            if not alive:
                raise RuntimeError(
                    "All processes of the model have died, and Ray has no room for new "
                    "ones. Look at the cluster with `ray status`."
                )
            return self._actors[replica] or alive[replica % len(alive)]

    def replace(self, actor: Any) -> None:
        """Starts a process in place of one that died, once, whoever saw it die."""
        with self._lock:
            if actor not in self._actors:
                return
            place = self._actors.index(actor)
            self._actors[place] = self._started_again(place)

    def build(self, example: Nest) -> None:
        """Creates the variables of a model that has none yet, in every process."""
        if self._example is None:
            self._ray.get([a.build.remote(example) for a in self._actors if a])
            self._example = example

    def close(self) -> None:
        """Ends the processes; calling it twice is harmless."""
        self._finalizer()

    def _start(self) -> Any:
        remote = self._ray.remote(Worker).options(**self._options)
        return remote.remote(*self._arguments)

    def _wait_for_all(self) -> list[About]:
        calls = [actor.about.remote() for actor in self._actors]
        try:
            return self._ray.get(calls, timeout=_START_SECONDS)
        except self._ray.exceptions.GetTimeoutError as error:
            self.close()
            raise RuntimeError(
                f"{self._plan.num_actors} processes with {self._plan.resources} each "
                f"did not start within {_START_SECONDS} s. Other jobs may hold the "
                "cluster: look at it with `ray status`."
            ) from error
        except self._ray.exceptions.RayTaskError as error:
            self.close()
            raise (error.cause or error) from None

    def _started_again(self, place: int) -> Any:
        actor = self._start()
        calls = [actor.about.remote()]
        if self._example is not None:
            calls.append(actor.build.remote(self._example))
        try:
            self._ray.get(calls, timeout=_REPLACE_SECONDS)
        except self._ray.exceptions.RayError as error:
            self._ray.kill(actor)
            warnings.warn(
                f"The process of replica {place} died and could not be replaced "
                f"({type(error).__name__}). The others do its work.",
                RuntimeWarning,
                stacklevel=2,
            )
            return None
        return actor


def _end(ray: Any, actors: list[Any]) -> None:
    if not ray.is_initialized():
        return
    for actor in actors:
        if actor is not None:
            ray.kill(actor)
    actors.clear()
