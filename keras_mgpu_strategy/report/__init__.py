"""`Report`, and the clock of the stages of a run."""

from keras_mgpu_strategy.report.clock import StageClock
from keras_mgpu_strategy.report.figures import (
    BOUNDS,
    STAGES,
    BackOff,
    Report,
    metric_lines,
    rate_text,
)

__all__ = [
    "BOUNDS",
    "STAGES",
    "BackOff",
    "Report",
    "StageClock",
    "metric_lines",
    "rate_text",
]
