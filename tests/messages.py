"""Matches whole error messages."""

import re


def exactly(message):
    """A pattern for `pytest.raises(match=...)` that matches only the whole message."""
    return rf"\A{re.escape(message)}\Z"
