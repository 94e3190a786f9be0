"""Reads large inputs in full during a run, so that their copies are recognized.

Guarantees:

* It reads at most about 200 MB a second, and ends with the run.
* The result is known only once everything has been read.
"""

import threading
from collections.abc import Callable

_PAUSE_SECONDS = 0.004
"""After each MiB."""


class ContentWatch:
    """What is in the files of an input, once they have been read.

    Args:
        digest: As in `Origin`; None if there is nothing to read.
        before: What an earlier run found; None if unknown.

    Attributes:
        found: The digest, as soon as it is known.
    """

    def __init__(
        self,
        digest: Callable[[Callable[[], bool]], str | None] | None,
        before: str | None,
    ) -> None:
        self.found = before
        self._digest = digest
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts reading."""
        if self._digest is not None and self.found is None:
            self._thread = threading.Thread(
                target=self._read, name="mgpu-content", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Stops reading; calling it twice is harmless."""
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()

    def _read(self) -> None:
        assert self._digest is not None
        self.found = self._digest(lambda: not self._is_over.wait(_PAUSE_SECONDS))
