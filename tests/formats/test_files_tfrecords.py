"""TFRecord files."""

import gzip
import re

import numpy as np
import pytest
import tensorflow as tf
from reading_files import check_rows, one, read

from keras_mgpu_strategy.files import TFRecords
from keras_mgpu_strategy.inputs import as_source

X = np.arange(46, dtype=np.float32).reshape(23, 2)


def parse(serialized):
    return tf.io.parse_tensor(serialized, tf.float32)[:2]


def parse_fixed(serialized):
    return tf.ensure_shape(tf.io.parse_tensor(serialized, tf.float32), [2])


def parse_named(serialized):
    row = parse_fixed(serialized)
    return {"a": row, "label": row[0]}


def save(path, rows, compression=None):
    if compression is None:
        compression = "GZIP" if path.suffix == ".gz" else ""
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for row in rows:
            writer.write(tf.io.serialize_tensor(row).numpy())
    return path


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "0.tfrecord", X[:5])
    save(tmp_path / "1.tfrecord.gz", X[5:15])
    save(tmp_path / "2.tfrecord", X[15:15])
    save(tmp_path / "3.tfrecord-00000-of-00001", X[15:])
    (tmp_path / "_SUCCESS").write_text("")
    return tmp_path


def test_rows_come_in_order(folder):
    source = TFRecords(folder, parse_fixed, batch_size=4).open_rows(None)
    assert source.num_rows is None
    assert source.spec == tf.TensorSpec([None, 2], tf.float32)
    check_rows(source, X)


def test_a_list_and_a_single_file(folder):
    paths = [folder / "1.tfrecord.gz", str(folder / "0.tfrecord")]
    source = TFRecords(paths, parse_fixed).open_rows(None)
    check_rows(source, np.concatenate([X[5:15], X[:5]]), [(4, 0), (4, 9)])
    check_rows(TFRecords(paths[1], parse_fixed).open_rows(None), X[:5], [(4, 0)])
    capitals = (folder / "1.tfrecord.gz").rename(folder / "1.TFRECORD.GZ")
    check_rows(TFRecords(capitals, parse_fixed).open_rows(None), X[5:15], [(4, 0)])
    check_rows(TFRecords(folder, parse_fixed).open_rows(None), X, [(4, 0)])


@pytest.mark.parametrize("compression", ["", "GZIP", "ZLIB"])
def test_compression_is_recognized_by_the_content(compression, tmp_path):
    for name in ("x.tfrecord", "x.tfrecord.gz", "x.tfrecords.zz", "x-00000-of-00001"):
        path = save(tmp_path / name, X, compression)
        check_rows(TFRecords(path, parse_fixed).open_rows(None), X, [(4, 3)])


def test_files_of_several_compressions(tmp_path):
    kinds = ["", "ZLIB", "ZLIB", "GZIP", "", "GZIP"]
    for index, part in enumerate(np.array_split(X, 6)):
        save(tmp_path / f"x-{index}-of-6", part, kinds[index])
    check_rows(TFRecords(tmp_path, parse_fixed).open_rows(None), X, [(4, 3), (23, 0)])


# A file whose first record has this length begins as if compressed.
@pytest.mark.parametrize("length", [0x0178, 0x9C78, 0xDA78, 0x088B1F])
def test_a_record_that_looks_compressed_is_not(length, tmp_path):
    path = tmp_path / "x.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(bytes(length))
    assert path.read_bytes()[:3] == length.to_bytes(3, "little")
    source = TFRecords(path, tf.strings.length).open_rows(None)
    assert [batch.inputs.tolist() for batch in source.batches(4)] == [[length]]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{path} is damaged or cut short"):
        read(TFRecords(path, tf.strings.length).open_rows(None), 4)


@pytest.mark.parametrize("compression", ["GZIP", "ZLIB"])
def test_a_compressed_file_that_is_cut_short_anywhere(compression, tmp_path):
    path = save(tmp_path / "x.tfrecord", X, compression)
    save(tmp_path / "y.tfrecord", X, compression)
    whole = path.read_bytes()
    for missing in [*range(1, 41), 100]:
        path.write_bytes(whole[:-missing])
        source = TFRecords(tmp_path, parse_fixed).open_rows(None)
        with pytest.raises(
            ValueError, match=f"{path} is damaged or cut short"
        ) as caught:
            read(source, 4)
        assert str(caught.value).endswith(". Copy or write it again.")
        assert "{" not in str(caught.value)


def test_compressed_files_that_were_joined_are_one(tmp_path):
    parts = [save(tmp_path / f"{i}", part, "GZIP") for i, part in enumerate([X, X])]
    joined = tmp_path / "x.tfrecord.gz"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    source = TFRecords(joined, parse_fixed).open_rows(None)
    check_rows(source, np.concatenate([X, X]), [(5, 0)])
    joined.write_bytes(joined.read_bytes()[:-5])
    with pytest.raises(ValueError, match=f"{joined} is damaged or cut short"):
        read(TFRecords(joined, parse_fixed).open_rows(None), 4)


def test_dicts_and_shapes_that_only_reading_shows(folder):
    source = as_source(TFRecords(folder, parse_named), input_spec={"a": one([2])})
    check_rows(source, {"a": X, "label": X[:, 0]}, [(4, 3)])
    assert TFRecords(folder, parse).open_rows(None).spec.shape.as_list() == [None, 2]
    check_rows(TFRecords(folder, parse).open_rows(None), X, [(4, 3)])


def test_steps_count_batches_of_the_records(folder):
    source = as_source(TFRecords(folder, parse_fixed, 4), steps=3, batch_size=5)
    check_rows(source, X[:12], [(5, 0), (5, 7)])
    source = as_source(TFRecords(folder, parse_fixed, 4), steps=9)
    with pytest.warns(UserWarning, match="ran out of data: steps=9 .*, but it has 6"):
        read(source, 5)


@pytest.mark.parametrize("name", ["0.tfrecord", "1.tfrecord.gz"])
def test_a_damaged_record_names_the_file(name, folder):
    path = folder / name
    whole = path.read_bytes()
    if path.suffix == ".gz":
        inner = bytearray(gzip.decompress(whole))
        inner[60] ^= 255
        path.write_bytes(gzip.compress(bytes(inner)))
    else:
        path.write_bytes(whole[:60] + b"x" + whole[61:])
    source = TFRecords(folder, parse_fixed).open_rows(None)
    with pytest.raises(ValueError, match=f"{path} is damaged or cut short") as caught:
        read(source, 4)
    assert re.search(r"short: corrupted record at \d+. Copy or", str(caught.value))


def test_an_error_of_the_function_passes_through(folder):
    source = TFRecords(folder, lambda s: tf.io.parse_tensor(s, tf.int32)).open_rows(
        one([2])
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="Type mismatch"):
        _ = source.spec


def test_damage_that_the_function_finds_is_not_blamed_on_files(folder):
    def unpack(serialized):
        return tf.ensure_shape(tf.io.decode_compressed(serialized, "ZLIB"), [])

    source = TFRecords(folder, unpack).open_rows(None)
    with pytest.raises(tf.errors.DataLossError):
        read(source, 4)


def test_what_does_not_fit(folder):
    with pytest.raises(TypeError, match="Received parse_fn=None, expected a function"):
        TFRecords(folder, None).open_rows(None)
    with pytest.raises(ValueError, match="Received batch_size=0"):
        TFRecords(folder, parse, batch_size=0).open_rows(None)
    with pytest.raises(FileNotFoundError, match="There is no file .*none.tfrecord"):
        TFRecords(folder / "none.tfrecord", parse).open_rows(None)
    (folder / "x.txt").write_text("")
    with pytest.raises(ValueError, match="holds more than TFRecord files: x.txt"):
        TFRecords(folder, parse).open_rows(None)
