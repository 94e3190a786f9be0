"""Frees models that were dropped, before many of them add up.

Models of Keras and graphs of TensorFlow are cycles of few Python objects that hold much
other memory: Python alone would collect them only after dozens of models.
"""

import gc

_MOST = 10


class _Models:
    """How many were made since all garbage was collected, by anyone."""

    def __init__(self) -> None:
        self._made = self._collections = 0

    def before_one(self) -> None:
        """Collects garbage if ten models were made since it was last collected."""
        collections = gc.get_stats()[-1]["collections"]
        if collections != self._collections:
            self._made, self._collections = 0, collections
        self._made += 1
        if self._made > _MOST and gc.isenabled():
            gc.collect()


before_a_model = _Models().before_one
