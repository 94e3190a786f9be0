"""The processes of a Predictor: started, replaced if they die, ended with it.

Guarantees:

* There are as many processes as asked for, or an error says why not.
* What a process was doing when it died is done again, the second time with nothing
  else in the new process; what repeatedly ends its process is an error.
* A process that died is replaced; if the cluster no longer has room for another, a
  warning says so and the others run its rows.
* An exception in a process arrives as itself.
* When the actors are closed or garbage-collected, their processes end.
"""

import time
import weakref
from typing import Any

from keras_mgpu_strategy.engines.ray.pickling import unwrapped
from keras_mgpu_strategy.engines.ray.plan import Plan, capacity
from keras_mgpu_strategy.engines.ray.slot import Slot
from keras_mgpu_strategy.engines.ray.worker import About, Worker
from keras_mgpu_strategy.system.fork_guard import HomeProcess
from keras_mgpu_strategy.system.messages import Line, calling_line, warn
from keras_mgpu_strategy.types import Nest

_MOST_ATTEMPTS = 3
_START_SECONDS = 600
_REPLACE_SECONDS = 90
_LOOK_SECONDS = 2


class Actors:
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
        self._slots = [Slot(self._start()) for _ in range(plan.num_actors)]
        self._finalizer = weakref.finalize(self, _end, ray, self._slots, HomeProcess())
        try:
            self._open_all()
        except BaseException:
            self.close()
            raise

    @property
    def abouts(self) -> list[About]:
        """What each process reported about itself."""
        return [slot.about for slot in self._slots if slot.about is not None]

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
            slot = self._slot_of(replica)
            with slot.alone() if attempt else slot.shared() as actor:
                try:
                    if actor is None:  # lost while this thread waited for its turn
                        raise self._ray.exceptions.ActorDiedError()
                    answer = self._ray.get(getattr(actor, method).remote(*args))
                    return unwrapped(answer, f"In the process of replica {replica}")
                except self._ray.exceptions.RayTaskError:
                    raise
                except self._ray.exceptions.RayError as error:
                    # Not the error itself, which would hold these actors.
                    died = f"{type(error).__name__}: {error}"
            self._replace(slot, actor, line or calling_line())
        raise RuntimeError(
            f"{what} ended {_MOST_ATTEMPTS} processes, all but the first with nothing "
            "else in them. Look at these rows, at the memory of the machine, and at "
            f"Ray's logs. Ray says: {died}"
        )

    def build(self, example: Nest) -> None:
        """Creates the variables of a model that has none yet, in every process."""
        if self._example is None:
            for replica in range(len(self._slots)):
                self.call(replica, "build", example, what="Building the model")
            self._example = example

    def refill(self) -> None:
        """Tries again to replace lost processes; warns about those still missing."""
        for slot in self._slots:
            if slot.is_lost and self._plan.fits(self._ray.available_resources()):
                slot.is_lost = False
                self._replace(slot, None, calling_line())
        num_lost = sum(slot.is_lost for slot in self._slots)
        if num_lost:
            warn(
                f"{num_lost} of {len(self._slots)} processes died before and there is "
                "no room for new ones. The others do their work.",
                RuntimeWarning,
            )

    def close(self) -> None:
        """Ends the processes; calling it twice is harmless."""
        self._finalizer()

    def _slot_of(self, replica: int) -> Slot:
        """Its own, or that of another replica if it is lost."""
        slots = [slot for slot in self._slots if not slot.is_lost]
        if not slots:
            raise RuntimeError(
                "All processes of the model have died, and Ray has no room for new "
                "ones. Look at the cluster with `ray status`."
            )
        own = self._slots[replica]
        return slots[replica % len(slots)] if own.is_lost else own

    def _start(self) -> Any:
        remote = self._ray.remote(Worker).options(**self._options)
        return remote.remote(*self._arguments)

    def _open_all(self) -> None:
        calls = [slot.actor.open.remote() for slot in self._slots]
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
        for slot, answer in zip(self._slots, answers, strict=True):
            slot.about = unwrapped(answer, "In a process that reads the model")

    def _replace(self, slot: Slot, died: Any, line: Line) -> None:
        """Replaces a process that died, once, however many threads saw it die."""
        with slot.alone() as actor:
            if actor is not died or slot.is_lost:
                return
            if died is not None:
                self._ray.kill(died)  # it may only be unreachable
            slot.actor = self._start()
            try:
                self._open_again(slot)
            except Exception as error:  # noqa: BLE001 - the others run its rows
                self._ray.kill(slot.actor)
                slot.actor, slot.is_lost = None, True
                line.warn(
                    f"The process of a replica died ({slot.about}) and could not be "
                    f"replaced: {type(error).__name__}: {error}. The others do its "
                    "work.",
                    RuntimeWarning,
                )

    def _open_again(self, slot: Slot) -> None:
        calls = [slot.actor.open.remote()]
        if self._example is not None:
            calls.append(slot.actor.build.remote(self._example))
        self._wait(calls, _REPLACE_SECONDS)
        slot.about, *_ = [unwrapped(answer, "") for answer in self._ray.get(calls)]

    def _wait(self, calls: list[Any], seconds: float) -> None:
        """Waits for answers while the cluster could hold all processes."""
        deadline = time.monotonic() + seconds
        while True:
            _, left = self._ray.wait(
                calls, num_returns=len(calls), timeout=_LOOK_SECONDS
            )
            if not left:
                return
            wanted = sum(not slot.is_lost for slot in self._slots)
            has_room = capacity(self._ray.nodes(), self._plan) >= wanted
            if not has_room or time.monotonic() > deadline:
                raise self._ray.exceptions.GetTimeoutError(
                    "it did not start in time"
                    if has_room
                    else "the cluster has shrunk and has no room for it"
                )


def _end(ray: Any, slots: list[Slot], home: HomeProcess) -> None:
    # A forked process must not end the actors of its parent.
    if not home.is_this or not ray.is_initialized():
        return
    for slot in slots:
        if slot.actor is not None:
            ray.kill(slot.actor)
    slots.clear()
