"""The process in which a model lives, and others, to which it cannot go.

A fork copies the memory of a process but none of its threads: neither TensorFlow's nor
Ray's nor those of a run that is on. Whoever waits for one of them there waits for ever.
"""

import dataclasses
import os
from typing import NoReturn


@dataclasses.dataclass(frozen=True)
class HomeProcess:
    """The process in which this was made.

    Args:
        pid: Its id.
    """

    pid: int = dataclasses.field(default_factory=os.getpid)

    @property
    def is_this(self) -> bool:
        """Whether this process is that one, and not one forked from it."""
        return self.pid == os.getpid()

    def check(self) -> None:
        """Refuses to go on in a forked process.

        Raises:
            RuntimeError: In any process but that one.
        """
        if not self.is_this:
            raise RuntimeError(
                f"This Predictor was made in process {self.pid}, and process "
                f"{os.getpid()} was forked from it. TensorFlow's threads do not come "
                "along in a fork, so that a run here would never end. Start processes "
                'with multiprocessing.get_context("spawn") or "forkserver", and load '
                "the model in each of them."
            )


class StaysHere:
    """What lives on the devices of a process, and cannot be sent to another one."""

    def __reduce__(self) -> NoReturn:
        """Refuses to be pickled, as for `multiprocessing` or joblib, and copied.

        Raises:
            TypeError: Always; says what to send instead.
        """
        raise TypeError(
            f"A {type(self).__name__} cannot be pickled or copied: its model lives on "
            "the devices of this process. Send the path of a saved model to other "
            'processes and call mgpu.load there, or pass engine="ray", which does that.'
        )
