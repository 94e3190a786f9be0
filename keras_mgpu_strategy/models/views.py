"""Views: what is done to rows before a model sees them, and to its results after."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class View:
    """A view of the rows."""
