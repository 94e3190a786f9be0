"""Which columns of an input are kept beside the results, and what is left to the model.

What is kept is not taken for a feature, unless the model declares an input of its name.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from keras_mgpu_strategy.formats.choosing import as_file, check_known
from keras_mgpu_strategy.inputs.forms import is_declared
from keras_mgpu_strategy.sources import frames
from keras_mgpu_strategy.sources.kept import KeptColumn
from keras_mgpu_strategy.sources.kept_columns import column_of
from keras_mgpu_strategy.sources.kept_elements import KeptElements, without_entries
from keras_mgpu_strategy.sources.matching import entries_by_name
from keras_mgpu_strategy.sources.streams import Form
from keras_mgpu_strategy.sources.unsupported import is_of
from keras_mgpu_strategy.types import Nest

_INDEX = "index"
_is_polars_frame = is_of("polars", "DataFrame")


def without_kept(
    x: Any, keep: Sequence[str], input_spec: Nest
) -> tuple[Any, dict[str, KeptColumn]]:
    """Returns what is left of an input in memory, and the columns that are kept."""
    if frames.is_frame(x):
        rest, found = _of_pandas(x, keep)
    elif _is_polars_frame(x):
        check_known(keep, x.columns, "keep")
        rest, found = x.drop(list(keep)), {name: x[name] for name in keep}
    elif isinstance(x, dict):
        check_known(keep, [key for key in x if isinstance(key, str)], "keep")
        own = _declared(input_spec)
        rest = {key: x[key] for key in x if key not in keep or key in own}
        found = {name: x[name] for name in keep}
    else:
        raise cannot_keep(x, keep)
    columns = {name: column_of(found[name], f"keep: {name!r}") for name in keep}
    return rest, columns


def kept_of_stream(
    read: Callable[[Form], Any], form: Form, keep: Sequence[str], spec: Nest
) -> KeptElements:
    """Returns a stream of dicts, read in a form, with the entries that are kept."""

    def check(x: Any) -> None:
        if not isinstance(x, Mapping):
            raise cannot_keep(x, keep)
        check_known(keep, [key for key in x if isinstance(key, str)], "keep")

    rest = without_entries(form, keep, _declared(spec), check)
    return KeptElements(read(rest), keep)


def _declared(input_spec: Nest) -> set[str]:
    return set(entries_by_name(input_spec)) if is_declared(input_spec) else set()


def cannot_keep(x: Any, keep: Sequence[str]) -> ValueError:
    """The error for an input that has no columns by name."""
    return ValueError(
        f"Received keep or labels {list(keep)!r} for {type(x).__name__}, which has no "
        "columns by name. Expected a DataFrame of pandas or polars, a dict of arrays, "
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


def _of_pandas(x: Any, keep: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    levels = {name: x.index.get_level_values(i) for i, name in enumerate(_levels(x))}
    check_known(keep, [*map(str, x.columns), *levels], "keep")
    found: dict[str, Any] = {}
    taken: list[Any] = []
    for name in keep:
        keys = [key for key in x.columns if str(key) == name]  # also numbers, tuples
        if not keys:
            found[name] = levels[name].to_series()
            continue
        if name in x.index.names or len(keys) > 1:
            what = "a column and in the index" if len(keys) == 1 else "two columns"
            raise ValueError(
                f"keep: {name!r} is the name of {what}. Rename one, as in "
                "x.rename_axis(index='other')."
            )
        found[name], taken = x[keys[0]], taken + keys
    return x.drop(columns=taken), found


def _levels(x: Any) -> list[str]:
    """Names of the levels of the index; that of an index without a name."""
    names: Collection[Any] = x.index.names
    return [_INDEX if name is None and len(names) == 1 else str(name) for name in names]
