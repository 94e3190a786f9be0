"""A stream that may be missing, fail or not be a stream, without harm to a run."""

import contextlib
import io
from typing import Any


class Screen(io.TextIOBase):
    """Passes text on until the stream, if there is one, fails; nothing after that."""

    def __init__(self, stream: Any):
        self._stream: Any = stream

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The stream's own, so that only characters it knows are drawn."""
        encoding = None
        with contextlib.suppress(Exception):  # no such attribute
            encoding = self._stream.encoding
        return encoding if isinstance(encoding, str) and encoding else "utf-8"

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        with contextlib.suppress(Exception):  # closed, or no such method
            return bool(self._stream.isatty())
        return False

    def write(self, text: str, /) -> int:
        """Writes text, or drops it; returns its length either way."""
        self._attempt("write", text)
        return len(text)

    def flush(self) -> None:
        """Flushes what was written."""
        self._attempt("flush")

    def _attempt(self, name: str, *arguments: Any) -> None:
        try:
            # A simple object may have no `flush`.
            if hasattr(self._stream, name):
                getattr(self._stream, name)(*arguments)
        # Gone, full, closed, unable to encode, or an error of the user's own object.
        except Exception:
            self._stream = None
