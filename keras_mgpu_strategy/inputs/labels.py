"""Labels and sample weights that come with x: arrays, parts of elements, or columns.

As in Keras: generators and data sets hold them in their elements, and everything else
has them as arguments. A column is given by its name, and is then not an input.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import tensorflow as tf

from keras_mgpu_strategy.element_forms import is_nest, map_nest
from keras_mgpu_strategy.formats.by_path import names_files
from keras_mgpu_strategy.formats.file_source import FileInput
from keras_mgpu_strategy.inputs.arrow_tables import is_table
from keras_mgpu_strategy.sources.frames import is_frame, is_polars, is_series
from keras_mgpu_strategy.sources.labels import (
    ByColumn,
    ByPosition,
    OfElements,
)
from keras_mgpu_strategy.sources.nests import leaves
from keras_mgpu_strategy.sources.streams import StreamSource
from keras_mgpu_strategy.types import Nest, Source

Attach: TypeAlias = Callable[[Source], Source]
"""Returns a source with labels beside its rows."""


def with_labels(
    x: Any, y: Any, sample_weight: Any, steps: int | None
) -> tuple[Any, list[str], Attach]:
    """Returns x, names of columns to keep of it, and what attaches the labels.

    Columns in memory are taken out of x; those of files and Arrow tables are kept.
    """
    if y is None and sample_weight is not None:
        raise ValueError(
            "Received sample_weight without y, expected labels with it: y=..., or "
            "elements (x, y, sample_weight) of a generator or data set."
        )
    given = [y] if sample_weight is None else [y, sample_weight]
    names = [leaf for _, leaf in leaves(given) if isinstance(leaf, str)]
    if names and (is_table(x) or names_files(x) or isinstance(x, FileInput)):
        return x, sorted({*names}), functools.partial(ByColumn, _all_named(given))
    if names:
        given = map_nest(functools.partial(_unless_named, x), given)
        x = without(x, names)
    # As Keras does, so that a metric of the user's own sees two axes.
    given = map_nest(lambda leaf: leaf.to_frame() if is_series(leaf) else leaf, given)
    targets = () if y is None else tuple(_for_each_output(given))
    return x, [], functools.partial(_attached, targets, steps is not None)


def _all_named(given: list[Nest]) -> tuple[Nest, ...]:
    others = [path for path, leaf in leaves(given, "") if not isinstance(leaf, str)]
    if others:
        raise ValueError(
            "Received the names of columns together with arrays, expected only names "
            "if x is a file or an Arrow table. Add the array to x as a column."
        )
    return tuple(_for_each_output(given))


def _attached(targets: tuple[Nest, ...], is_limited: bool, source: Source) -> Source:
    if not isinstance(source, StreamSource):
        return ByPosition(targets, is_limited, source) if targets else source
    if targets:
        raise ValueError(
            "Received y= with x that comes in batches of its own, expected elements "
            "(x, y) or (x, y, sample_weight) that hold the labels, as in Keras."
        )
    return OfElements(source)


def _for_each_output(given: list[Nest]) -> list[Nest]:
    """Repeats weights that are one array if there are several labels, as in Keras."""
    y, *rest = given
    if not rest or not is_nest(y):
        return given
    if not is_nest(rest[0]):
        return [y, map_nest(lambda _: rest[0], y)]
    try:
        tf.nest.assert_same_structure(y, rest[0], check_types=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"sample_weight and y differ in structure ({error}). Expected one array, "
            "or an array for each of the labels."
        ) from error
    return given


def _unless_named(x: Any, leaf: Any) -> Any:
    return column(x, leaf) if isinstance(leaf, str) else leaf


def column(x: Any, name: str) -> Any:
    """Returns a column of a frame, or an entry of a dict; ValueError without one."""
    names = _names(x)
    if names is None:
        raise ValueError(
            f"{name!r} is a name, but x is {type(x).__name__}, which has no named "
            "columns. Expected an array, or the name of a column of a DataFrame, an "
            "Arrow table, a Parquet or CSV file, or of an entry of a dict."
        )
    if names.count(name) != 1:
        raise ValueError(
            f"x has {names.count(name)} columns named {name!r}, expected one. Its "
            f"columns are {names}."
        )
    return x[name]


def _names(x: Any) -> list[Any] | None:
    if isinstance(x, Mapping):
        return list(x)
    is_table = is_frame(x) or (is_polars(x) and hasattr(x, "columns"))
    return list(x.columns) if is_table else None


def without(x: Any, names: list[str]) -> Any:
    """Returns a frame or dict without some of its columns."""
    if isinstance(x, Mapping):
        return {name: x[name] for name in x if name not in names}
    return x.drop(columns=names) if is_frame(x) else x.drop(names)
