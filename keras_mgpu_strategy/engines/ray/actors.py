"""The processes of a Predictor: started, replaced if they die, ended with it.

What a dead process did is done again, alone in a new process; what ends that too is an
error. Without room for another, a warning says so and the others run its rows.
"""

import contextlib
import functools
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

from keras_mgpu_strategy.engines.ray.pickling import unwrapped
from keras_mgpu_strategy.engines.ray.plan import ActorPlan, capacity
from keras_mgpu_strategy.engines.ray.worker import About, Worker
from keras_mgpu_strategy.system.fork_guard import HomeProcess
from keras_mgpu_strategy.system.messages import Line, calling_line, warn
from keras_mgpu_strategy.types import Nest

_MOST_ATTEMPTS = 3
_START_SECONDS = 600
_REPLACE_SECONDS = 90
_LOOK_SECONDS = 2


class Slot:
    """A process of one replica, called by several threads; replaced when it dies."""

    def __init__(self, actor: Any):
        self.actor: Any = actor
        self.about: About | None = None
        self.is_lost = False
        self._entry = threading.Lock()
        self._changed = threading.Condition()
        self._num_calls = 0

    @contextlib.contextmanager
    def shared(self) -> Iterator[Any]:
        """Waits until no thread is alone with the process; yields the process."""
        with self._entry:
            self._count(1)
        try:
            yield self.actor
        finally:
            self._count(-1)

    @contextlib.contextmanager
    def alone(self) -> Iterator[Any]:
        """Waits until no other thread can call the process, and end it; yields it."""
        with self._entry:
            with self._changed:
                self._changed.wait_for(lambda: not self._num_calls)
            yield self.actor

    def _count(self, change: int) -> None:
        with self._changed:
            self._num_calls += change
            self._changed.notify_all()


class Actors:
    """As many processes as planned, with the arguments of `Worker`."""

    def __init__(
        self,
        ray: Any,
        plan: ActorPlan,
        max_concurrency: int,
        arguments: tuple[Any, ...],
    ):
        self._ray = ray
        self._plan = plan
        self._example: Nest = None
        # Retries are ours: Ray would rerun a chunk that kills its process forever.
        own = {"max_restarts": 0, "max_task_retries": 0}
        options = {**plan.resources, **own, "max_concurrency": max_concurrency}
        start = ray.remote(Worker).options(**options).remote
        self._start = functools.partial(start, *arguments)
        self._slots = [Slot(self._start()) for _ in range(plan.num_actors)]
        # Ends the processes; calling it twice is harmless.
        self.close = weakref.finalize(self, _end, ray, self._slots, HomeProcess())
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
        self, replica: int, method: str, *args: Any, what: str, line: Line | None = None
    ) -> Any:
        """Calls a method of `Worker`, again if its process dies in the meantime."""
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

    def _open_all(self) -> None:
        try:
            self._open(self._slots, _START_SECONDS, "In a process that reads the model")
        except self._ray.exceptions.GetTimeoutError as error:
            raise RuntimeError(
                f"{self._plan.num_actors} processes with {self._plan.resources} each "
                f"did not start within {_START_SECONDS} s. Other jobs may hold the "
                "cluster: look at it with `ray status`."
            ) from error
        except self._ray.exceptions.RayActorError as error:
            raise RuntimeError(
                "A process died while it read the model. Look at the memory of the "
                f"machine, and at Ray's logs. Ray says: {error}"
            ) from error

    def _open(self, slots: list[Slot], seconds: float, where: str = "") -> None:
        """Has processes read the model, and create the variables that others have."""
        calls = [slot.actor.open.remote() for slot in slots]
        if self._example is not None:
            calls += [slot.actor.build.remote(self._example) for slot in slots]
        self._wait(calls, seconds)
        answers = [unwrapped(answer, where) for answer in self._ray.get(calls)]
        for slot, about in zip(slots, answers, strict=False):
            slot.about = about

    def _replace(self, slot: Slot, died: Any, line: Line) -> None:
        """Replaces a process that died, once, however many threads saw it die."""
        with slot.alone() as actor:
            if actor is not died or slot.is_lost:
                return
            if died is not None:
                self._ray.kill(died)  # it may only be unreachable
            slot.actor = self._start()
            try:
                self._open([slot], _REPLACE_SECONDS)
            except Exception as error:  # noqa: BLE001 - the others run its rows
                self._ray.kill(slot.actor)
                slot.actor, slot.is_lost = None, True
                line.warn(
                    f"The process of a replica died ({slot.about}) and could not be "
                    f"replaced: {type(error).__name__}: {error}. The others do its "
                    "work.",
                    RuntimeWarning,
                )

    def _wait(self, calls: list[Any], seconds: float) -> None:
        """Waits for answers while the cluster could hold all processes."""
        deadline = time.monotonic() + seconds
        while True:
            done, _ = self._ray.wait(
                calls, num_returns=len(calls), timeout=_LOOK_SECONDS
            )
            if len(done) == len(calls):
                return
            wanted = sum(not slot.is_lost for slot in self._slots)
            why = "it did not start in time"
            if capacity(self._ray.nodes(), self._plan) < wanted:
                why = "the cluster has shrunk and has no room for it"
            elif time.monotonic() <= deadline:
                continue
            raise self._ray.exceptions.GetTimeoutError(why)


def _end(ray: Any, slots: list[Slot], home: HomeProcess) -> None:
    # A forked process must not end the actors of its parent.
    if not home.is_this or not ray.is_initialized():
        return
    for slot in slots:
        if slot.actor is not None:
            ray.kill(slot.actor)
    slots.clear()
