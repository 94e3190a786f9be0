"""The process in which a model lives, and others, to which it cannot move.

A fork has no threads of TensorFlow, Ray or a run: waiting for one never ends.
"""

import dataclasses
import os
import sys
from typing import NoReturn

_WHY = (
    "TensorFlow's threads do not come along in a fork, so that a run here would never "
    'end. Start processes with multiprocessing.get_context("spawn") or "forkserver", '
    "and load the model in each of them."
)


@dataclasses.dataclass(frozen=True)
class HomeProcess:
    """The process in which this object was created."""

    pid: int = dataclasses.field(default_factory=os.getpid)

    @property
    def is_this(self) -> bool:
        """Whether this process is that one, and not one forked from it."""
        return self.pid == os.getpid()

    def check(self) -> None:
        """Raises RuntimeError in any other process."""
        if not self.is_this:
            raise RuntimeError(
                f"This Predictor was made in process {self.pid}, and process "
                f"{os.getpid()} was forked from it. {_WHY}"
            )


class StaysHere:
    """Base of what lives on the devices of a process and cannot be sent to another."""

    def __reduce__(self) -> NoReturn:
        """Refuses to be copied or pickled; says what to send instead."""
        raise TypeError(
            f"A {type(self).__name__} cannot be pickled or copied: its model lives on "
            "the devices of this process. Send the path of a saved model to other "
            'processes and call mgpu.load there, or pass engine="ray", which does that.'
        )


def _has_started() -> bool:
    # No public API reports this without looking for devices, which must not happen in a
    # fork. Tested with TensorFlow 2.18 and 2.21; None if it is not imported.
    context = sys.modules.get("tensorflow.python.eager.context")
    started = getattr(context, "_context", None)
    return getattr(started, "_context_handle", None) is not None


def _has_one_thread() -> bool:
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:  # not Linux
        return False


_pid = os.getpid()
# Where TensorFlow was started, if its threads are not here.
_started_in = os.getppid() if _has_started() and _has_one_thread() else None


def _note_fork() -> None:
    global _pid, _started_in
    if _started_in is None and _has_started():
        _started_in = _pid
    _pid = os.getpid()


os.register_at_fork(after_in_child=_note_fork)


def check_not_forked() -> None:
    """Raises RuntimeError in a process that was forked after TensorFlow had started."""
    if _started_in is not None:
        raise RuntimeError(
            f"TensorFlow had started in process {_started_in}, and process "
            f"{os.getpid()} was forked from it. {_WHY}"
        )
