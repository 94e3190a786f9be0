"""The processes of a Predictor: started, replaced if they die, ended with it.

Guarantees:

* There are as many processes as asked for, or an error says why not.
* What a process was doing when it died is done again, the second time with nothing
  else in the new process; work that repeatedly ends its process is an error.
* A process that died is replaced; if the cluster no longer has room for another, a
  warning says so and the others do its work.
* An exception in a process arrives as itself.
* When the fleet is closed or garbage-collected, its processes end.
"""

import time
import weakref
from typing import Any

from keras_mgpu_strategy.engines.ray.plan import Plan, capacity
from keras_mgpu_strategy.engines.ray.remote_errors import unwrapped
from keras_mgpu_strategy.engines.ray.slot import Place
from keras_mgpu_strategy.engines.ray.worker import About, Worker
from keras_mgpu_strategy.system.caller import Line, calling_line, warn
from keras_mgpu_strategy.system.fork_guard import HomeProcess
from keras_mgpu_strategy.types import Nest

_MOST_ATTEMPTS = 3
_START_SECONDS = 600
_REPLACE_SECONDS = 90
_LOOK_SECONDS = 2


class Fleet:
    """Processes that each hold a replica.

    Args:
        ray: The package, connected.
        plan: How many, and what each gets.
        max_concurrency: Calls that a process works on at a time.
        arguments: Those of `Worker`; the model as a reference to Ray's store.

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
        # Retries are ours: Ray would rerun a chunk that kills its process forever.
        self._options = plan.resources | {
            "max_concurrency": max_concurrency,
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        self._places = [Place(self._start()) for _ in range(plan.num_actors)]
        self._finalizer = weakref.finalize(self, _end, ray, self._places, HomeProcess())
        try:
            self._open_all()
        except BaseException:
            self.close()
            raise

    @property
    def abouts(self) -> list[About]:
        """What each process reported about itself."""
        return [place.about for place in self._places if place.about is not None]

    def call(
        self,
        replica: int,
        method: str,
        *args: Any,
        what: str,
        line: Line | None = None,
    ) -> Any:
        """Has a process do something, again if it dies in the meantime.

        Args:
            replica: Whose process; another one if that could not be replaced.
            method: A method of `Worker`.
            *args: Its arguments.
            what: What is done, for messages.
            line: Where the user asked for it, if in another thread.

        Raises:
            RuntimeError: It ended every process that did it, or no process is left.
            Exception: What was raised in the process.
        """
        died = ""
        for attempt in range(_MOST_ATTEMPTS):
            place = self._place_of(replica)
            with place.alone() if attempt else place.shared() as actor:
                try:
                    answer = self._ask(actor, method, *args)
                    return unwrapped(answer, f"In the process of replica {replica}")
                except self._ray.exceptions.RayTaskError:
                    raise
                except self._ray.exceptions.RayError as error:
                    died = (
                        f"{type(error).__name__}: {error}"  # it would hold this fleet
                    )
            self._replace(place, actor, line or calling_line())
        raise RuntimeError(
            f"{what} ended {_MOST_ATTEMPTS} processes, all but the first with nothing "
            "else in them. Look at these rows, at the memory of the machine, and at "
            f"Ray's logs. Ray says: {died}"
        )

    def build(self, example: Nest) -> None:
        """Creates the variables of a model that has none yet, in every process."""
        if self._example is None:
            for replica in range(len(self._places)):
                self.call(replica, "build", example, what="Building the model")
            self._example = example

    def refill(self) -> None:
        """Tries again to replace lost processes; warns about those still missing."""
        for place in self._places:
            if place.is_lost and self._plan.fits(self._ray.available_resources()):
                place.is_lost = False
                self._replace(place, None, calling_line())
        num_lost = sum(place.is_lost for place in self._places)
        if num_lost:
            warn(
                f"{num_lost} of {len(self._places)} processes died before and there is "
                "no room for new ones. The others do their work.",
                RuntimeWarning,
            )

    def close(self) -> None:
        """Ends the processes; calling it twice is harmless."""
        self._finalizer()

    def _place_of(self, replica: int) -> Place:
        """Its own, or that of another replica if it is lost."""
        places = [place for place in self._places if not place.is_lost]
        if not places:
            raise RuntimeError(
                "All processes of the model have died, and Ray has no room for new "
                "ones. Look at the cluster with `ray status`."
            )
        own = self._places[replica]
        return places[replica % len(places)] if own.is_lost else own

    def _ask(self, actor: Any, method: str, *args: Any) -> Any:
        if actor is None:  # lost while this thread waited for its turn
            raise self._ray.exceptions.ActorDiedError()
        return self._ray.get(getattr(actor, method).remote(*args))

    def _start(self) -> Any:
        remote = self._ray.remote(Worker).options(**self._options)
        return remote.remote(*self._arguments)

    def _open_all(self) -> None:
        calls = [place.actor.open.remote() for place in self._places]
        try:
            self._wait(calls, _START_SECONDS)
        except self._ray.exceptions.GetTimeoutError as error:
            raise RuntimeError(
                f"{self._plan.num_actors} processes with {self._plan.resources} each "
                f"did not start within {_START_SECONDS} s. Other jobs may hold the "
                "cluster: look at it with `ray status`."
            ) from error
        try:
            answers = self._ray.get(calls)
        except self._ray.exceptions.RayActorError as error:
            raise RuntimeError(
                "A process died while it read the model. Look at the memory of the "
                f"machine, and at Ray's logs. Ray says: {error}"
            ) from error
        for place, answer in zip(self._places, answers, strict=True):
            place.about = unwrapped(answer, "In a process that reads the model")

    def _replace(self, place: Place, died: Any, line: Line) -> None:
        """Replaces a process that died, once, however many threads saw it die."""
        with place.alone() as actor:
            if actor is not died or place.is_lost:
                return
            if died is not None:
                self._ray.kill(died)  # it may only be unreachable
            place.actor = self._start()
            try:
                self._open_again(place)
            except Exception as error:  # noqa: BLE001 - the others go on
                self._ray.kill(place.actor)
                place.actor, place.is_lost = None, True
                line.warn(
                    f"The process of a replica died ({place.about}) and could not be "
                    f"replaced: {type(error).__name__}: {error}. The others do its "
                    "work.",
                    RuntimeWarning,
                )

    def _open_again(self, place: Place) -> None:
        calls = [place.actor.open.remote()]
        if self._example is not None:
            calls.append(place.actor.build.remote(self._example))
        self._wait(calls, _REPLACE_SECONDS)
        answers = [unwrapped(answer, "") for answer in self._ray.get(calls)]
        place.about = answers[0]

    def _wait(self, calls: list[Any], seconds: float) -> None:
        """Waits for answers while the cluster could hold all processes."""
        deadline = time.monotonic() + seconds
        while True:
            _, left = self._ray.wait(
                calls, num_returns=len(calls), timeout=_LOOK_SECONDS
            )
            if not left:
                return
            wanted = sum(not place.is_lost for place in self._places)
            has_room = capacity(self._ray.nodes(), self._plan) >= wanted
            if not has_room or time.monotonic() > deadline:
                raise self._ray.exceptions.GetTimeoutError(
                    "it did not start in time"
                    if has_room
                    else "the cluster has shrunk and has no room for it"
                )


def _end(ray: Any, places: list[Place], home: HomeProcess) -> None:
    # A forked process must not end the fleet of its parent.
    if not home.is_this or not ray.is_initialized():
        return
    for place in places:
        if place.actor is not None:
            ray.kill(place.actor)
    places.clear()
