"""A real terminal for tests of progress."""

import contextlib

import pytest

from tests.runs.progress.watching import Terminal


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    terminal = Terminal()
    yield terminal
    terminal.hang_up()
    with contextlib.suppress(OSError):
        terminal.stream.close()
