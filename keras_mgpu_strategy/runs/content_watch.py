"""Reads large inputs as a whole beside a run, so that their copies are known again.

Guarantees:

* It reads about 200 MB a second at most, and ends with the run.
* What it found is known only once all was read.
"""

import threading
from collections.abc import Callable

_PAUSE_SECONDS = 0.004
"""After each MiB."""


class ContentWatch:
    """What is in the files of an input, once it was read.

    Args:
        digest: As of `Origin`; None where there is nothing to read.
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
        """Begins to read."""
        if self._digest is not None and self.found is None:
            self._thread = threading.Thread(
                target=self._read, name="mgpu-content", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Ends reading; calling it twice is harmless."""
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()

    def _read(self) -> None:
        assert self._digest is not None
        self.found = self._digest(lambda: not self._is_over.wait(_PAUSE_SECONDS))
