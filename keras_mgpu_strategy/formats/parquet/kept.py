"""Columns of Arrow tables that are kept beside the results: one type over all files.

Dictionaries become their values. Types of one kind become the widest of them; whatever
could change a value is an error.
"""

from collections.abc import Sequence
from typing import Any

from keras_mgpu_strategy.formats.choosing import check_known
from keras_mgpu_strategy.formats.parquet.schema import Part, Schema
from keras_mgpu_strategy.sources.arrow_values import value_type, values_of


class KeptArrowColumns:
    """The kept columns of tables; `schema` has them in the order of `names`."""

    def __init__(
        self, parts: Sequence[Part], schema: Schema, names: Sequence[str]
    ) -> None:
        import pyarrow as pa

        check_known(names, list(schema.types), f"{parts[0].path}, keep or labels")
        types = [(name, _common_type(parts, schema, name)) for name in names]
        self.schema = pa.schema(types) if names else None
        self.names = frozenset(names)

    def read(self, part: Part, batch: Any) -> Any:
        """Returns the columns of a batch of a part."""
        import pyarrow as pa

        if self.schema is None:
            return None
        arrays = []
        for field in self.schema:
            if field.name in part.keys:
                key = pa.array([part.keys[field.name]], pa.string()).cast(field.type)
                arrays.append(pa.repeat(key[0], batch.num_rows))
                continue
            try:
                arrays.append(values_of(batch.column(field.name), field.type))
            except pa.ArrowException as error:
                raise ValueError(
                    f"{part.path}, column {field.name!r} cannot be kept as "
                    f"{field.type}, as in the other files: {error}."
                ) from error
        return pa.Table.from_arrays(arrays, schema=self.schema)


def _common_type(parts: Sequence[Part], schema: Schema, name: str) -> Any:
    import pyarrow as pa

    found = None
    for part in parts:
        if name in part.keys:
            dtype = schema.types[name].dtype
            is_number = dtype is not None and dtype.kind != "S"
            here = pa.from_numpy_dtype(dtype) if is_number else pa.string()
        else:
            here = value_type(part.arrow.field(name).type)
        both = here if found is None else _widest(found, here)
        if both is None:
            raise ValueError(
                f"{part.path}, column {name!r} is {here}, but {found} in the files "
                "before. Expected one type in all files that are kept from. Convert "
                "it, or leave it out of keep."
            )
        found = both
    return found


def _widest(first: Any, other: Any) -> Any:
    """The type that holds all values of both as they are; None if none does."""
    import pyarrow as pa

    if first.equals(other):
        return first
    schemas = [pa.schema([("", kind)]) for kind in (first, other)]
    is_same_kind = _kind(first) == _kind(other) and not first.num_fields
    # Otherwise only null becomes another type.
    options = {"promote_options": "permissive"} if is_same_kind else {}
    try:
        found = pa.unify_schemas(schemas, **options).field(0).type
    except pa.ArrowException:
        return None
    # Arrow knows no integers that hold these and negative ones.
    is_held = pa.uint64() not in (first, other) or found.equals(pa.uint64())
    return found if is_held else None


def _kind(arrow_type: Any) -> Any:
    import pyarrow.types as types

    for kind in ("integer", "floating", "decimal"):
        if getattr(types, f"is_{kind}")(arrow_type):
            return kind
    is_text = types.is_string(arrow_type) or types.is_large_string(arrow_type)
    return "text" if is_text else arrow_type.id
