"""A stream that may be missing or fail without harm to the run."""

import io
from collections.abc import Callable
from typing import Any, TextIO


class Screen(io.TextIOBase):
    """Passes text on until the stream fails, then nothing any more.

    Args:
        stream: Standard error, or another; None where there is none.
    """

    def __init__(self, stream: TextIO | None):
        self._stream = stream

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The stream's own, so that only characters it knows are drawn."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return bool(self._attempt(lambda stream: stream.isatty()))

    def write(self, text: str, /) -> int:
        """Writes text, or drops it; returns its length either way."""
        self._attempt(lambda stream: stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Hands over what was written."""
        self._attempt(lambda stream: stream.flush())

    def _attempt(self, call: Callable[[TextIO], Any]) -> Any:
        if self._stream is None:
            return None
        try:
            return call(self._stream)
        except (OSError, ValueError):  # gone or full; closed, or unable to encode
            self._stream = None
            return None
