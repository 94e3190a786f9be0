"""Columns that are taken out of an input: kept beside the results, or labels.

What is kept is not taken for a feature, unless the model declares an input of its name.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from keras_mgpu_strategy.formats.choosing import as_file, check_known
from keras_mgpu_strategy.inputs.forms import is_declared
from keras_mgpu_strategy.sources import frames
from keras_mgpu_strategy.sources.kept import KeptElements
from keras_mgpu_strategy.sources.kept_columns import KeptColumn, column_of
from keras_mgpu_strategy.sources.matching import entries_by_name
from keras_mgpu_strategy.sources.streams import Form, inputs_of
from keras_mgpu_strategy.types import Nest

_INDEX = "index"


def has_columns(x: Any) -> bool:
    """Whether an input in memory has columns, or entries, by name."""
    is_frame = frames.is_frame(x) or frames.is_polars_frame(x)
    return is_frame or isinstance(x, Mapping)


def taken(
    x: Any,
    names: Sequence[str],
    what: str,
    own: Collection[str] = (),
    *,
    may_be_index: bool = False,
) -> tuple[Any, dict[str, Any]]:
    """Returns an input that `has_columns` without some, except `own`, and these."""
    if frames.is_frame(x):
        return _of_pandas(x, names, what, _levels(x) if may_be_index else {})
    if isinstance(x, Mapping):
        check_known(names, [key for key in x if isinstance(key, str)], what)
        rest = {key: x[key] for key in x if key not in names or key in own}
    else:
        check_known(names, x.columns, what)
        rest = x.drop(list(names))
    return rest, {name: x[name] for name in names}


def without_kept(
    x: Any, keep: Sequence[str], input_spec: Nest
) -> tuple[Any, dict[str, KeptColumn]]:
    """Returns what is left of an input in memory, and the columns that are kept."""
    if not has_columns(x):
        raise cannot_keep(x, keep)
    rest, found = taken(x, keep, "keep", _declared(input_spec), may_be_index=True)
    return rest, {name: column_of(found[name], f"keep: {name!r}") for name in keep}


def kept_of_stream(
    read: Callable[[Form], Any], form: Form, keep: Sequence[str], spec: Nest
) -> KeptElements:
    """Returns a stream of dicts, read in a form, with the entries that are kept."""
    own = _declared(spec)

    def rest(element: Any) -> Nest:
        x = inputs_of(element)
        if not isinstance(x, Mapping):
            raise cannot_keep(x, keep)
        left, _ = taken(x, keep, "keep", own)
        return form(left if x is element else (left, *element[1:]))

    return KeptElements(read(rest), keep)


def cannot_keep(x: Any, keep: Sequence[str]) -> ValueError:
    """The error for an input that has no named columns."""
    return ValueError(
        f"Received keep or labels {list(keep)!r} for {type(x).__name__}, which has no "
        "named columns. Expected a DataFrame of pandas or polars, a dict of arrays, "
        "an Arrow table, Parquet or CSV files, or batches that are dicts. Pass a dict "
        f"such as {{'x': x, 'id': ids}}.{as_file(keep)}"
    )


def check_lengths(columns: dict[str, KeptColumn], num_rows: int | None) -> None:
    """Refuses columns of another length than the rows of the model."""
    lengths = {name: column.num_rows for name, column in columns.items()}
    if wrong := {name: n for name, n in lengths.items() if n != num_rows}:
        shown = ", ".join(f"{name!r}: {n}" for name, n in wrong.items())
        raise ValueError(
            f"Received {num_rows} rows for the model and other numbers of values to "
            f"keep ({shown}), expected one value a row."
        )


def _declared(input_spec: Nest) -> set[str]:
    return set(entries_by_name(input_spec)) if is_declared(input_spec) else set()


def _of_pandas(
    x: Any, names: Sequence[str], what: str, levels: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    check_known(names, [*map(str, x.columns), *levels], what)
    found: dict[str, Any] = {}
    columns: list[Any] = []
    for name in names:
        keys = [key for key in x.columns if str(key) == name]  # also numbers, tuples
        if not keys:
            found[name] = levels[name].to_series()
            continue
        if (levels and name in x.index.names) or len(keys) > 1:
            places = "a column and in the index" if len(keys) == 1 else "two columns"
            raise ValueError(
                f"{what}: {name!r} is the name of {places}. Rename one, as in "
                "x.rename_axis(index='other')."
            )
        found[name], columns = x[keys[0]], columns + keys
    return x.drop(columns=columns), found


def _levels(x: Any) -> dict[str, Any]:
    """The levels of the index by name; that of an index without a name."""
    names = list(x.index.names)
    shown = [_INDEX] if names == [None] else map(str, names)
    return {name: x.index.get_level_values(i) for i, name in enumerate(shown)}
