import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_mgpu_strategy.outputs.column_names import unique
from keras_mgpu_strategy.outputs.columns import columns_of, structure_of
from keras_mgpu_strategy.outputs.interface import Column

X = np.zeros((2, 3), np.float32)
NAMES = [
    (X, ["output"]),
    ([X, X], ["output_0", "output_1"]),
    ((X,), ["output_0"]),
    ({"b": X, "a": X}, ["a", "b"]),
    ({"b": [X, X], "a": {"x": X}}, ["a_x", "b_0", "b_1"]),
    ([{"x": X}, X], ["output_0_x", "output_1"]),
    ({"a_0": X, "a": [X]}, ["a_0", "a_0_2"]),
    ({"row": X, "file": X, "File": X}, ["File_2", "file_3", "row_2"]),
    ({"A": X, "a": X}, ["A", "a_2"]),
    ({"zarr.json": X}, ["zarr.json_2"]),
    ({"net/Sigmoid:0": X}, ["net_Sigmoid_0"]),
    ({"../x": X, ".hidden": X, "": X}, ["output", "_x", "_hidden"]),
    ({"__x": X, "a..b": X, " ": X, "C:\\x": X}, ["output", "C__x", "_x", "a__b"]),
    ({0: X, 1: X}, ["0", "1"]),
]


@pytest.mark.parametrize(("outputs", "names"), NAMES)
def test_names_follow_from_the_structure(outputs, names):
    assert [column.name for column in columns_of(outputs)] == names


def test_columns_record_shapes_and_native_dtypes():
    outputs = {"a": np.zeros((0, 2, 3), ">f4"), "b": np.zeros(5, np.int64)}
    assert columns_of(outputs) == (
        Column("a", (2, 3), np.dtype("=f4")),
        Column("b", (), np.dtype("=i8")),
    )


def test_structure_holds_the_names_in_place_of_the_outputs():
    outputs = {"b": (X, [X]), "a": X}
    assert structure_of(outputs) == {"a": "a", "b": ["b_0", ["b_1_0"]]}
    assert structure_of(X) == "output"


NESTS = st.recursive(
    st.just(X),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3),
        st.dictionaries(st.text(max_size=6), inner, min_size=1, max_size=3),
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(NESTS)
def test_names_are_safe_and_different_and_in_the_order_of_tf_nest(nest):
    names = [column.name for column in columns_of(nest)]
    assert len({name.casefold() for name in names} | {"row", "file"}) == len(names) + 2
    for name in names:
        assert name and not re.search(r"[/\\\x00]|\.\.|^\.", name)
        assert len(name.encode()) <= 200
    numbered = tf.nest.pack_sequence_as(nest, list(range(len(names))))
    in_place = tf.nest.flatten(structure_of(numbered))
    assert sorted(in_place) == sorted(names)


def test_long_names_are_cut_and_stay_different():
    names = [column.name for column in columns_of({"ä" * 300 + x: X for x in "ab"})]
    assert len(set(names)) == 2
    assert max(len(name.encode()) for name in names) <= 160


def test_unique_counts_up_until_a_name_is_free():
    assert unique(["a", "A", "a_2", "a"], ["a"]) == ["a_2", "A_3", "a_2_2", "a_4"]
