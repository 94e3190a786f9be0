"""Progress of a run that writes to a file: a live bar, or lines for a log."""

from keras_mgpu_strategy.runs.progress.meter import RowRange
from keras_mgpu_strategy.runs.progress.show import show_progress

__all__ = ["RowRange", "show_progress"]
