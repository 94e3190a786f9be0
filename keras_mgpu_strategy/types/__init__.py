"""Values and interfaces that travel between the parts of the package."""

from keras_mgpu_strategy.types.ragged import (
    Ragged,
    as_tensors,
    joined,
    rows_of,
    values_of,
)
from keras_mgpu_strategy.types.rows import (
    NO_MARKS,
    X_ALONE,
    DeclaredInput,
    Feeding,
    HostBatch,
    InputBatch,
    NamedRows,
    Nest,
    Origin,
    RowMarks,
    Source,
    Undeclared,
    cut,
)

__all__ = [
    "NO_MARKS",
    "X_ALONE",
    "DeclaredInput",
    "Feeding",
    "HostBatch",
    "InputBatch",
    "NamedRows",
    "Nest",
    "Origin",
    "Ragged",
    "RowMarks",
    "Source",
    "Undeclared",
    "as_tensors",
    "cut",
    "joined",
    "rows_of",
    "values_of",
]
