"""Values and interfaces that travel between the parts of the package."""

from keras_mgpu_strategy.types.ragged import (
    Ragged,
    as_tensors,
    has_free_length,
    joined,
    of_length,
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
    "has_free_length",
    "joined",
    "of_length",
    "rows_of",
    "values_of",
]
