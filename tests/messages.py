"""Messages of errors, asserted in full."""

import re


def exactly(message):
    """A pattern for `pytest.raises(match=...)` that only the whole message fits."""
    return rf"\A{re.escape(message)}\Z"
