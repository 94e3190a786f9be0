"""Parquet files: columns, streaming, and what is refused."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_files import POSITIONS, check_rows, one, read

from keras_mgpu_strategy.files import Parquet
from keras_mgpu_strategy.inputs import as_source
from keras_mgpu_strategy.sources.matching import match_inputs

RNG = np.random.default_rng(0)
F = RNG.normal(size=23)
G = RNG.normal(size=23).astype(np.float32)
N = RNG.integers(-9, 9, 23)
V = RNG.normal(size=(23, 4)).astype(np.float32)
M = RNG.normal(size=(23, 2, 3)).astype(np.float32)
WORDS = [f"wört {i % 5}" for i in range(23)]


def fixed(array):
    """A column of fixed-size lists, nested as deeply as the array has axes."""
    values = pa.array(array.reshape(-1))
    for size in reversed(array.shape[1:]):
        values = pa.FixedSizeListArray.from_arrays(values, size)
    return values


def table(**columns):
    everything = {
        "f": F,
        "g": G,
        "n": N,
        "flag": N > 0,
        "v": fixed(V),
        "free": pa.array(list(V.tolist()), pa.list_(pa.float32())),
        "m": fixed(M),
        "deep": pa.array(M.tolist(), pa.large_list(pa.list_(pa.float32()))),
        "word": WORDS,
        "code": pa.array(WORDS).dictionary_encode(),
        "raw": pa.array([word.encode() for word in WORDS], pa.large_binary()),
        "day": pa.array(range(23), pa.date32()),
    }
    return pa.table(columns or everything)


def save(path, content=None, group=6):
    pq.write_table(table() if content is None else content, path, row_group_size=group)
    return path


def encoded(words):
    return np.array([word.encode() for word in words], object)


CASES = [
    ("f", one([], name="f"), F.astype(np.float32)),
    ("f", one([1], name="f"), F.astype(np.float32)[:, None]),
    ("n", one([], tf.int64, "n"), N),
    ("flag", one([1], tf.bool, "flag"), (N > 0)[:, None]),
    ("v", one([4], name="v"), V),
    ("v", one([2, 2], name="v"), V.reshape(-1, 2, 2)),
    ("v", one([None], name="v"), V),
    ("free", one([4], name="free"), V),
    ("free", one([4, 1], name="free"), V[..., None]),
    ("m", one([2, 3], name="m"), M),
    ("m", one([6], name="m"), M.reshape(-1, 6)),
    ("deep", one([2, None], name="deep"), M),
    ("word", one([], tf.string, "word"), encoded(WORDS)),
    ("code", one([1], tf.string, "code"), encoded(WORDS)[:, None]),
    ("raw", one([], tf.string, "raw"), encoded(WORDS)),
]


@pytest.mark.parametrize(("name", "spec", "expected"), CASES)
def test_a_column_by_the_name_of_the_input(name, spec, expected, tmp_path):
    source = Parquet(save(tmp_path / "x.parquet")).open_rows(spec)
    assert source.num_rows == 23
    match_inputs(source.spec, spec)
    check_rows(source, expected, [(1, 0), (5, 0), (8, 7), (64, 12), (4, 23)])
    # And for a model that declares nothing.
    source = Parquet(tmp_path / "x.parquet", name).open_rows(None)
    tensors = {"v": V, "m": M, "deep": M, "free": V}
    natural = tensors[name] if name in tensors else expected.reshape(23)
    check_rows(source, natural, [(5, 3)])


def test_several_inputs_by_name(tmp_path):
    inputs = {"f": one([1], name="x1"), "m": one([2, 3], name="x2")}
    source = Parquet(save(tmp_path / "x.parquet")).open_rows(inputs)
    check_rows(source, {"f": F.astype(np.float32)[:, None], "m": M})
    inputs = [one([2, 3], name="m"), [one([], tf.string, "word")]]
    source = Parquet(save(tmp_path / "x.parquet")).open_rows(inputs)
    check_rows(source, [M, [encoded(WORDS)]], [(5, 3)])


def test_columns_are_stacked_in_the_order_given(tmp_path):
    path = save(tmp_path / "x.parquet")
    expected = np.stack([N, F, G], axis=1).astype(np.float32)
    for spec in (one([3], name="x"), None):
        check_rows(Parquet(path, ["n", "f", "g"]).open_rows(spec), expected, [(5, 3)])
    twice = Parquet(path, ("n", "n")).open_rows(one([2], tf.int64))
    check_rows(twice, np.stack([N, N], 1), [(5, 3)])
    check_rows(Parquet(path, ["n"]).open_rows(None), N[:, None], [(5, 3)])
    words = np.stack([encoded(WORDS)] * 2, axis=1)
    source = Parquet(path, ["word", "raw"]).open_rows(one([2], tf.string))
    check_rows(source, words, [(5, 3)])


def test_columns_by_input(tmp_path):
    path = save(tmp_path / "x.parquet")
    inputs = {"wide": one([2], name="w"), "deep": one([4], name="d")}
    source = Parquet(path, {"wide": ["f", "g"], "deep": "v"}).open_rows(inputs)
    wide = np.stack([F, G], axis=1).astype(np.float32)
    check_rows(source, {"wide": wide, "deep": V}, [(5, 3)])
    source = Parquet(path, ["n", "v"]).open_rows([one([1], name="p"), one([4])])
    check_rows(source, [N[:, None], V], [(5, 3)])


def test_all_columns_of_numbers_if_they_are_as_many(tmp_path):
    content = table(row=np.arange(23), f=F, word=WORDS, n=N)
    path = save(tmp_path / "x.parquet", content)
    expected = np.stack([F, N], axis=1).astype(np.float32)
    check_rows(Parquet(path).open_rows(one([2])), expected, [(5, 3)])
    check_rows(Parquet(path).open_rows(one([], tf.string)), encoded(WORDS), [(5, 3)])
    message = (
        r"no column named after the model's input, 'a', and 2 columns of numbers, "
        r"expected 3: received f, word \(text\), n; taken by name alone: "
        r"row. Pass columns=\[...\]"
    )
    with pytest.raises(ValueError, match=message):
        Parquet(path).open_rows(one([3]))
    with pytest.raises(
        ValueError, match="'x', and 2 columns of numbers, expected one: "
    ):
        Parquet(path).open_rows(None)


def test_files_of_our_own_results(tmp_path):
    """A column `row`, and one of lists."""
    folder = tmp_path / "scores.parquet"
    folder.mkdir()
    content = table(row=np.arange(23), output=fixed(V))
    save(folder / "part-00001.parquet", content.slice(9))
    save(folder / "part-00000.parquet", content.slice(0, 9))
    (folder / ".spool").write_text("hidden")
    (folder / "_SUCCESS").write_text("")
    source = as_source(folder, input_spec=one([4], name="x"))
    check_rows(source, V)
    with pytest.raises(ValueError, match="and 0 columns of numbers, expected 1"):
        Parquet(folder).open_rows(one([1]))


def test_another_layout(tmp_path):
    tensor = pa.fixed_shape_tensor(pa.float32(), [2, 3])
    storage = pa.FixedSizeListArray.from_arrays(pa.array(M.reshape(-1)), 6)
    content = table(m=pa.ExtensionArray.from_storage(tensor, storage))
    path = save(tmp_path / "x.parquet", content)
    check_rows(Parquet(path).open_rows(one([2, 3], name="m")), M, [(5, 3)])


@settings(max_examples=40, deadline=None)
@given(
    files=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)), max_size=4),
    batch_size=st.integers(1, 50),
    seed=st.integers(0, 99),
)
def test_any_layout_of_row_groups(files, batch_size, seed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("layout")
    total = sum(num_rows for num_rows, _ in files)
    values = np.arange(total, dtype=np.float32)
    position = 0
    for index, (num_rows, group) in enumerate([*files, (0, 1)]):
        rows = values[position : position + num_rows]
        content = table(a=rows, b=fixed(np.stack([rows, -rows], 1)))
        save(folder / f"{index}.parquet", content, group)
        position += num_rows
    source = Parquet(folder).open_rows({"a": one([]), "b": one([2], name="b")})
    assert source.num_rows == total
    start = seed % (total + 1)
    expected = {"a": values, "b": np.stack([values, -values], 1)}
    check_rows(source, expected, [(batch_size, start), (batch_size, 0)])


def test_no_row_group_is_decoded_twice_or_needlessly(tmp_path, monkeypatch):
    path = save(tmp_path / "x.parquet")
    asked = []
    original = pq.ParquetFile.iter_batches

    def recording(self, batch_size, row_groups=None, columns=None, **options):
        asked.append((row_groups, columns))
        return original(self, batch_size, row_groups, columns, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", recording)
    source = Parquet(path).open_rows(one([], name="f"))
    assert asked == []
    read(source, 4)
    assert asked == [([0, 1, 2, 3], ["f"])]
    read(source, 4, start=13)
    assert asked[1:] == [([2, 3], ["f"])]


def test_a_list_of_files_is_read_in_its_order(tmp_path):
    for index, name in enumerate("ba"):
        (tmp_path / name).mkdir()
        save(tmp_path / name / "x.parquet", table(a=[index * 2.0, index * 2.0 + 1]))
    paths = [str(tmp_path / name / "x.parquet") for name in "ba"]
    source = as_source(paths, input_spec=one([]))
    check_rows(source, np.arange(4, dtype=np.float32), [(3, 0), (3, 1)])
    other = Parquet(paths[::-1]).open_rows(one([]))
    assert other.identity != source.identity


def test_no_rows(tmp_path):
    content = table().slice(0, 0)
    for name, spec, expected in CASES:
        source = Parquet(save(tmp_path / "x.parquet", content), name).open_rows(spec)
        assert source.num_rows == 0
        match_inputs(source.spec, spec)
        assert source.spec.shape[1:].rank == expected.ndim - 1
        assert list(source.batches(4)) == []


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([1.0, None, 3.0, 4.0]), "column 'a', row 1 holds a null, expected a"),
        (pa.array(["x", "y", "z", None]), "column 'a', row 3 holds a null"),
        (pa.array([[1.0], [2.0], None, [3.0]]), "column 'a', row 2 holds a null"),
        (pa.array([[1.0], [2.0], [None], [3.0]]), "column 'a', row 2 holds a null"),
        (
            pa.array([[1, 2], [2, 3], [4], [3, 1]]),
            "column 'a', row 2 holds a list of 1 values, expected 2 as in the rest",
        ),
        (
            pa.array([[[1], [2]], [[2], [3]], [[4], [5, 6]]]),
            "column 'a', row 2 holds a list of 2 values, expected 1 as in the rest",
        ),
        (
            pa.array([[1.0, 2.0], None], pa.list_(pa.float64(), 2)),
            "column 'a', row 1 holds a null",
        ),
    ],
)
def test_nulls_and_ragged_lists(column, message, tmp_path):
    save(tmp_path / "0.parquet", table(a=column.slice(0, 1)))
    for group, batch_size in ((1, 1), (9, 2)):
        bad = save(tmp_path / "1.parquet", table(a=column), group)
        source = Parquet(tmp_path, "a").open_rows(None)
        with pytest.raises(ValueError, match=f"{bad}, {message}"):
            read(source, batch_size)


def test_the_rows_before_a_null_come_first(tmp_path):
    path = save(tmp_path / "x.parquet", table(a=pa.array([1.0, 2.0, None])), 1)
    batches = Parquet(path, "a").open_rows(None).batches(1)
    assert [next(batches).inputs.tolist(), next(batches).inputs.tolist()] == [[1], [2]]
    with pytest.raises(ValueError, match="row 2 holds a null"):
        next(batches)


@pytest.mark.parametrize(
    ("columns", "spec", "message"),
    [
        (
            "day",
            None,
            r"columns day \(date32\[day\]\): expected numbers, bools, strings or lis",
        ),
        ("none", None, "there is no 'none'; received f, g, n, .*and 2 more. Check the"),
        (
            ["v", "f"],
            None,
            r"columns v \(list\), f are stacked for one input, expected one numbe",
        ),
        (["word", "f"], None, r"columns word \(text\), f are stacked for one input"),
        (
            ["f", "g"],
            one([3]),
            r"2 columns \(f, g\) for the model input 'a', which tak",
        ),
        ([], None, r"Received columns=\[\], expected names of columns"),
        ([3], None, r"Received columns=\[3\], expected names of columns"),
        (
            None,
            [one([]), one([], name="f")],
            r"lacks columns .* \['a'\]: received f, g",
        ),
        (
            ["f"],
            [one([]), one([], name="b")],
            r"received \['f'\], expected one for each",
        ),
        (
            ["f", "g"],
            {"a": one([]), "b": one([])},
            r"a dict with the keys \['a', 'b'\]",
        ),
        (
            {"c": "f"},
            one([]),
            r"received {'c': 'f'}, expected one for each model input",
        ),
    ],
)
def test_columns_that_do_not_fit(columns, spec, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Parquet(save(tmp_path / "x.parquet"), columns).open_rows(spec)


def test_columns_with_the_same_name(tmp_path):
    content = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    path = save(tmp_path / "x.parquet", content)
    with pytest.raises(ValueError, match="several columns named 'a'. Rename"):
        Parquet(path).open_rows(one([]))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"a": ["1"]}, "'a' is string, expected double"),
        ({"a": [[1.0]]}, "'a' is list<.*>, expected double"),
        ({"b": [1.0]}, "'a' is missing, expected double"),
        ({"a": [1.0], "b": [1]}, "'b' is int64, expected no such column"),
    ],
)
def test_files_of_different_columns(other, message, tmp_path):
    save(tmp_path / "0.parquet", table(a=[1.0]))
    save(tmp_path / "1.parquet", table(**other))
    message = f"1.parquet does not have the columns of .*0.parquet: {message}"
    with pytest.raises(ValueError, match=message):
        Parquet(tmp_path).open_rows(one([]))


def test_folders_that_hold_something_else(tmp_path):
    with pytest.raises(ValueError, match="holds no Parquet file"):
        Parquet(tmp_path).open_rows(one([]))
    save(tmp_path / "0.parquet", table(a=[1.0]))
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match="holds more than Parquet files: notes.txt"):
        Parquet(tmp_path).open_rows(one([]))
    with pytest.raises(ValueError, match="an empty list of paths"):
        Parquet([]).open_rows(one([]))
    with pytest.raises(FileNotFoundError, match="There is no file .*2.parquet"):
        Parquet([tmp_path / "2.parquet"]).open_rows(one([]))
    with pytest.raises(TypeError, match=r"Received 3 \(int\), expected a path"):
        Parquet([3]).open_rows(one([]))


def test_a_damaged_page(tmp_path):
    path = tmp_path / "x.parquet"
    content = table(f=RNG.normal(size=999))
    pq.write_table(content, path, write_page_checksum=True, use_dictionary=False)
    damaged = bytearray(path.read_bytes())
    damaged[3000] ^= 255
    path.write_bytes(damaged)
    source = Parquet(path).open_rows(one([], name="f"))
    with pytest.raises((ValueError, OSError), match=f"{path} cannot be read as a Parq"):
        read(source, 64)


def test_a_file_that_changes_while_it_is_read(tmp_path):
    path = save(tmp_path / "x.parquet")
    source = Parquet(path).open_rows(one([], name="f"))
    save(path, table().slice(0, 20))
    with pytest.raises((ValueError, OSError), match="must not change|x.parquet"):
        read(source, 64)
    path.unlink()
    with pytest.raises(OSError, match="x.parquet"):
        read(source, 64)


def test_reading_that_is_stopped_early(tmp_path):
    source = Parquet(save(tmp_path / "x.parquet")).open_rows(one([], name="f"))
    batches = source.batches(2)
    next(batches)
    batches.close()
    check_rows(source, F.astype(np.float32), POSITIONS)
