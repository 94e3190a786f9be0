"""What a user asks to keep beside the results, checked before any row is run."""

import pathlib
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.compute.heads import Head
from keras_mgpu_strategy.formats.registry import FORMATS, output_format, writer_of
from keras_mgpu_strategy.outputs.columns import columns_of
from keras_mgpu_strategy.outputs.interface import Column, Layout
from keras_mgpu_strategy.outputs.refusals import check_kept_names
from keras_mgpu_strategy.runs.run import Run, Runner
from keras_mgpu_strategy.sources.kept import schema_of
from keras_mgpu_strategy.system.extras import import_extra
from keras_mgpu_strategy.types import Nest

Keep = str | Sequence[str] | None


def kept_names(keep: Keep, path: pathlib.Path) -> tuple[str, ...]:
    """Returns the names of the columns to keep in an output."""
    if keep is None:
        return ()
    names = (keep,) if isinstance(keep, str) else keep
    is_listed = isinstance(names, Sequence) and not isinstance(names, bytes)
    if not is_listed or not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"Received keep={keep!r:.80}. Expected the name of a column, or a list of "
            "names."
        )
    names = tuple(names)
    if names and not output_format(path).is_table:
        tables = [row.suffix for row in FORMATS if row.is_table]
        raise ValueError(
            f"Received keep={list(names)!r} for the output {path}, which has no "
            f"columns. Give a {' or '.join(tables)} output."
        )
    check_kept_names(names)
    if names:
        import_extra("pyarrow", "parquet", "keep=")
    return names


def kept_settings(
    run: Run, runner: Runner, head: Head, names: tuple[str, ...], path: pathlib.Path
) -> dict[str, Any]:
    """Returns the names and types that the file depends on; refuses what it lacks."""
    if not names:
        return {}
    schema: Any = schema_of(run.rows.whole)
    if schema is None:
        raise ValueError(
            f"Received keep={list(names)!r} for an input without a single batch, so "
            "that the types of its columns are not known. Pass at least one batch."
        )
    columns = _declared_columns(runner.backend.output_shapes, head)
    writer_of(path).check(Layout(columns, kept=schema))
    types = map(str, schema.types)
    return {"keep": [list(pair) for pair in zip(schema.names, types, strict=True)]}


def _declared_columns(shapes: Nest | None, head: Head) -> tuple[Column, ...]:
    """Columns of the results by the names that a model declares; none if unknown."""
    if shapes is None or any(shape.rank is None for shape in tf.nest.flatten(shapes)):
        return ()
    with tf.device("CPU:0"):
        row = lambda shape: tf.zeros([1, *(n or 1 for n in shape[1:])])  # noqa: E731
        return columns_of(head(tf.nest.map_structure(row, shapes)))
