"""Rows of unequal length: whatever holds them, the same rows reach the model."""

import re
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from keras_mgpu_strategy.inputs import as_source, labelled
from keras_mgpu_strategy.sources.origins import origin_of
from keras_mgpu_strategy.types import DeclaredInput, Feeding, Ragged, Undeclared
from tests import ragged_zoo

ROWS = [[1, 2, 3], [4], [], [5, 6]]
IDS = DeclaredInput((None, None), tf.int32, "ids")
AGE = DeclaredInput((None, 1), tf.float32, "age")
TEXT = DeclaredInput((None, None), tf.string, "text")
POINTS = DeclaredInput((None, None, 2), tf.float32, "points")
FIXED = DeclaredInput((None, 3), tf.int32, "fixed")


def opened(x, input_spec: Any = IDS, **options):
    return as_source(x, input_spec=input_spec, ragged=True, **options)


def as_lists(leaf):
    if not isinstance(leaf, Ragged):
        return leaf.tolist()
    ends = zip(leaf.offsets[:-1], leaf.offsets[1:], strict=True)
    return [leaf.values[a:b].tolist() for a, b in ends]


def rows_of(source, size=3, start=0):
    """All rows as lists, in the structure of the input."""
    batches = [*source.batches(size, start)]
    position = start
    for batch in batches:
        assert (batch.start, 0 < batch.num_rows <= size) == (position, True)
        position += batch.num_rows
    parts = [tf.nest.flatten(batch.inputs) for batch in batches]
    return [sum(map(as_lists, leaf), []) for leaf in zip(*parts, strict=True)]


@pytest.mark.parametrize("kind", ragged_zoo.INPUTS)
def test_every_kind_of_input_gives_the_same_rows_from_any_start(kind, tmp_path):
    pytest.importorskip(ragged_zoo.NEEDS.get(kind, "numpy"))
    make, rows = ragged_zoo.INPUTS[kind], ragged_zoo.rows(40)
    rows[3:3] = [[], []]  # rows without tokens count
    by_name = {"x": IDS} if kind == "dict" else IDS
    source = opened(make(rows, tmp_path), by_name)
    (spec,) = tf.nest.flatten(source.spec)
    assert (spec.shape.as_list(), spec.dtype.is_integer) == ([None, None], True)
    assert rows_of(source, 8) == [rows]
    for size, start in ((1, 37), (100, 5)):
        again = opened(make(rows, tmp_path), by_name)
        assert rows_of(again, size, start) == [rows[start:]]
    alone = opened(make(rows, tmp_path), Undeclared(tf.float32))
    assert rows_of(alone, 7) == [rows]
    fresh = (opened(make(rows, tmp_path), by_name) for _ in range(2))
    first, other = (origin_of(source).about for source in fresh)
    assert first and first == other
    if kind not in ragged_zoo.NEVER_EMPTY:
        none = opened(make([], tmp_path), by_name)
        assert [*none.batches(4)] == [] and none.num_rows in (0, None)


IN_MEMORY = {
    "lists": ROWS,
    "mixed": [[1, 2, 3], np.array([4]), (), tf.constant([5, 6])],
    "objects": ragged_zoo.objects(ROWS),
    "ragged": tf.ragged.constant(ROWS),
}


@pytest.mark.parametrize("x", IN_MEMORY.values(), ids=IN_MEMORY)
def test_rows_in_memory_are_the_same_whatever_holds_them(x):
    source = opened(x)
    assert source.spec == tf.TensorSpec((None, None), tf.int32)
    assert rows_of(source) == [ROWS]
    assert rows_of(source, 1, 3) == [ROWS[3:]]
    assert rows_of(opened({"ids": x}, {"ids": IDS})) == [ROWS]
    assert rows_of(opened(x, steps=2, batch_size=1)) == [ROWS[:2]]
    undeclared = opened(x, Undeclared(tf.float32))
    assert undeclared.spec.shape.as_list() == [None, None]
    assert rows_of(undeclared) == [ROWS]
    about = origin_of(source).about
    assert about == origin_of(opened(ROWS)).about
    assert about != origin_of(opened([[1, 2], [3, 4], [], [5, 6]])).about


def test_rows_hold_vectors_strings_or_nothing_next_to_fixed_inputs():
    vectors = [[[1, 2], [3, 4]], [], [[5, 6]]]
    assert rows_of(opened(vectors, POINTS)) == [vectors]
    arrays = [np.array(row, np.float64) for row in vectors]
    assert rows_of(opened(arrays, POINTS)) == [vectors]
    words = [["a", "bc"], [], ["d"]]
    expected = [[[b"a", b"bc"], [], [b"d"]]]
    assert rows_of(opened(words, TEXT)) == rows_of(
        opened(np.array(words, object), TEXT)
    )
    assert rows_of(opened(tf.ragged.constant(words), TEXT)) == expected
    two, ages = {"age": AGE, "ids": IDS}, [1, 2, 3, 4.5]
    by_name = opened({"ids": ROWS, "age": ages, "unused": [0] * 4}, two)
    assert rows_of(by_name) == [ages, ROWS]
    by_position = opened([np.array([ages]).T, ROWS], [AGE, IDS])
    assert rows_of(by_position) == [[[age] for age in ages], ROWS]
    one_length = opened(np.ones((2, 3)))
    assert one_length.spec.shape.as_list() == [None, None]
    assert rows_of(one_length) == rows_of(opened([[1] * 3] * 2)) == [[[1] * 3] * 2]
    assert rows_of(opened([[1, 2, 3]] * 2, FIXED)) == [[[1, 2, 3]] * 2]
    for x in ([], [[], []], [[[]]][:0]):
        source = opened(x, TEXT)
        assert (source.num_rows, source.spec.dtype) == (len(x), tf.string)
    large = 2**53 + 1  # no float holds it
    of_dtypes = [np.array([large]), np.array([]), np.array([7], np.uint64)]
    assert rows_of(opened(of_dtypes, Undeclared(None))) == [[[large], [], [7]]]
    assert opened([[1], [2.5]], Undeclared(tf.float32)).spec.dtype == tf.float32


BAD = {
    "scalar": ([[1, 2], 3], IDS, "x, row 1 is 3 (int), expected a list or an array"),
    "string": ([[1, 2], "ab"], IDS, "x, row 1 is 'ab' (str), expected a list"),
    "no tokens": ([1, 2], IDS, "x has shape (2,), expected rows of tokens"),
    "mixed": ([["a"], ["b", 1]], TEXT, "row 1 holds 1, expected strings only"),
    "none": ([[1], [2, None]], IDS, "row 1 holds None, expected numbers only"),
    "range": ([[1, 2], [2**40]], IDS, "row 1 holds 1099511627776 (int64)"),
    "fraction": ([[], [1.5]], IDS, "row 1 holds 1.5 (float64), expected an integer"),
    "inner": ([[[1, 2]], [[3, 4], [5]]], POINTS, "row 1 has tokens of shape (1,)"),
    "widths": ([[[1, 2]], [[3, 4, 5]]], POINTS, "row 1 has tokens of shape (3,)"),
    "arrays": ([np.ones((1, 2)), np.ones((2, 3))], POINTS, "row 1 has tokens of shape"),
    "deep": (tf.ragged.constant([[[1, 2], [3]]]), POINTS, "one axis that varies"),
    "wide": ([[1], [2**70]], IDS, "row 1 holds 1180591620717411303424, expected"),
    "masked": ([np.ma.masked_array([1, 2], [False, True])], IDS, "row 0 has a mask"),
    "no axis": ([np.array(1), np.array([2])], IDS, "x, row 0 is array(1) (ndarray),"),
    "no list": ([[1], {2}], IDS, "row 1 is set, expected a list or an array"),
    "name": ({"id": [[1]]}, {"ids": IDS}, "x lacks the model inputs ['ids']"),
    "fixed": (ROWS, FIXED, "rows of unequal length, but the model input 'fixed'"),
    "lengths": (
        {"ids": [[1], [2, 3]], "mask": [[1], [1]]},
        {"ids": IDS, "mask": DeclaredInput((None, None), tf.int32, "mask")},
        "x['ids'], row 1 has 2 tokens, but x['mask'] has 1",
    ),
}


def test_unequal_numbers_of_rows_do_not_ask_for_padding_again():
    two = {"ids": IDS, "age": AGE}
    with pytest.raises(ValueError, match="the same number of rows in each.$"):
        opened({"ids": [[1], [2, 3]], "age": np.ones((1, 1))}, two)


@pytest.mark.parametrize(("x", "spec", "said"), BAD.values(), ids=BAD)
def test_an_error_names_the_row_and_the_input(x, spec, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        rows_of(opened(x, spec))


OF_ONE_LENGTH = ("reused_memory", "dataset_of_one")


@pytest.mark.parametrize("kind", sorted({*ragged_zoo.INPUTS} - {*OF_ONE_LENGTH}))
def test_without_pad_the_error_names_it(kind, tmp_path):
    pytest.importorskip(ragged_zoo.NEEDS.get(kind, "numpy"))
    x = ragged_zoo.INPUTS[kind](ragged_zoo.rows(40), tmp_path)
    with pytest.raises((TypeError, ValueError), match=r"ass pad=mgpu.Pad\(\)"):
        source = as_source(x, input_spec={"x": IDS} if kind == "dict" else IDS)
        next(source.batches(8))


def test_a_list_of_another_length_far_into_a_table_is_an_error_with_its_row():
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"x": [[1, 2]] * 100 + [[3]]})
    batches = as_source(table, input_spec=IDS).batches(100)
    assert next(batches).num_rows == 100
    said = "x, column 'x', row 100 holds a list of 1 values, expected 2"
    with pytest.raises(ValueError, match=said):
        next(batches)


def test_columns_whose_lists_differ_in_length_are_an_error_with_the_row():
    pyarrow = pytest.importorskip("pyarrow")
    two = {"ids": IDS, "mask": DeclaredInput((None, None), tf.int32, "mask")}
    table = pyarrow.table({"ids": [[1], [2, 3]], "mask": [[1], [1]]})
    said = "x, column 'ids', row 1 has 2 tokens, but column 'mask' has 1. Expected one"
    with pytest.raises(ValueError, match=said):
        rows_of(opened(table, two))


def test_rows_that_the_model_makes_itself_are_not_padded():
    for feeding in (Feeding(raw=True), Feeding(whole="keras")):
        with pytest.raises(ValueError, match="Received pad= for a model with a pre"):
            opened(ROWS, feeding=feeding)


def tables():
    """Rows, labels and names in every kind of input that has columns."""
    columns = {"ids": ROWS, "y": [0, 1, 2, 3], "id": ["a", "b", "c", "d"]}
    yield {**columns, "y": np.arange(4), "id": np.array(columns["id"])}
    for package, name in (
        ("pandas", "DataFrame"),
        ("polars", "DataFrame"),
        ("pyarrow", "table"),
    ):
        yield getattr(pytest.importorskip(package), name)(columns)


def test_labels_and_kept_columns_stay_with_their_rows():
    by_name = {"ids": IDS}
    for x in tables():
        given = labelled(x, {"labels": "y"}, ["id"], None)
        attach = given.pop("attach")
        how = {"input_spec": by_name, "keep": given["keep"]}
        source = attach(as_source(given["x"], ragged=True, **how))
        assert rows_of(source) == [ROWS]
        marks = source.marks(1, 4)
        assert marks.kept["id"].to_pylist() == ["b", "c", "d"]
        assert np.ravel(marks.targets[0]).tolist() == [1, 2, 3]


def test_labels_and_kept_entries_of_batches_stay_with_their_rows():
    def batches():
        for first in (0, 3):
            x = {"ids": ROWS[first : first + 3], "id": list("abcd")[first : first + 3]}
            yield x, np.arange(4)[first : first + 3]

    source = opened(batches(), {"ids": IDS}, keep=["id"])
    source = labelled(None, {}, [], None)["attach"](source)
    assert rows_of(source) == [ROWS]
    marks = source.marks(1, 4)
    assert marks.kept["id"].to_pylist() == ["b", "c", "d"]
    assert marks.targets[0].tolist() == [1, 2, 3]
    with pytest.warns(UserWarning, match="ran out of data: steps=9 .* it has 2"):
        assert rows_of(opened(iter([ROWS[:2], ROWS[2:]]), steps=9)) == [ROWS]


def test_variable_length_arrays_of_hdf5_are_read_as_batches(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        x = file.create_dataset("x", (4,), h5py.vlen_dtype(np.int32))
        for index, row in enumerate(ROWS):
            x[index] = row
        with pytest.raises(ValueError, match=r"Pass pad=mgpu.Pad\(\) with batches"):
            opened(x)
        assert rows_of(opened(x[i : i + 3] for i in (0, 3))) == [ROWS]
