"""Hostile or truncated inputs: a clear error, before any work."""

import gzip
import json
import os
import re
import struct
import time
import warnings
import zipfile

import h5py
import numpy as np
import pytest
import tensorflow as tf
import zarr

from keras_mgpu_strategy import files
from keras_mgpu_strategy.formats.by_path import file_input
from keras_mgpu_strategy.outputs.memory import collected
from keras_mgpu_strategy.types import HostBatch
from tests.security import hostile

ROWS = np.arange(40, dtype=np.float32).reshape(10, 4)
SPEC = tf.TensorSpec([None, 4], tf.float32, name="x")
HUGE = 10**18
NPY = " cannot be read as a .npy file of plain numbers or strings"


def read_all(path):
    """Reads an input by its path alone, as a user names it."""
    return [batch.inputs for batch in file_input(path).open_rows(SPEC).batches(4)]


def refused(path, *messages):
    """Checks that an input is refused soon, by name and without a warning."""
    began = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((ValueError, OSError)) as caught:
            read_all(path)
    assert re.search(".*".join([path.name, *messages]), str(caught.value))
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (hostile.claiming((HUGE,)), "cut short: .* expected 4000000000000000"),
        (hostile.claiming((2**32, 2**32)), "claims more than can be"),
        (hostile.claiming((2**63, 2)), "claims more than can be"),
        (hostile.claiming((0, 2**63)), "claims more than can be"),
        (hostile.claiming((HUGE, 0)), "claims more than can be"),
        (hostile.claiming((HUGE,), "|S0"), "claims more than can be"),
        (hostile.claiming((-4, 2)), "has the shape"),
        (hostile.claiming((True, 2)), "has the shape"),
        (hostile.claiming((2,) * 70), "has the shape|at most 64|cut short"),
        (hostile.claiming((2,), "|O"), "Python objects, which are never unpickled"),
        (hostile.claiming((2,), [("a", "|O")]), "Python objects"),
        (hostile.claiming((5,), "<U9999999999"), "valid dtype descriptor"),
        ("-" * 9000 + "1", "its header cannot be parsed|Header"),
        ("(" * 9000, "header"),
        ("__import__('os').mkdir('x')", "malformed node|header"),
        ("\0\0", "header|null bytes"),
        ("'''", "header"),
        ("", "header"),
    ],
)
def test_npy_headers_that_lie(header, message, tmp_path):
    path = tmp_path / "x.npy"
    for version in ((1, 0), (2, 0)):
        path.write_bytes(hostile.raw_npy(header, version=version))
        refused(path, NPY, message)


@pytest.mark.parametrize("version", [(3, 0), (0, 0), (9, 9)])
def test_unknown_npy_versions(version, tmp_path):
    path = tmp_path / "x.npy"
    path.write_bytes(hostile.raw_npy(hostile.claiming((2,)), version=version))
    refused(path, NPY, "version")


def write_npz(path, content, compression=zipfile.ZIP_DEFLATED, **claims):
    """A `.npz` file whose directory makes claims that a test chooses."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("x.npy", content)
        for name, value in claims.items():
            setattr(archive.getinfo("x.npy"), name, value)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_npz_members_that_lie(compression, tmp_path):
    path = tmp_path / "x.npz"
    content = hostile.raw_npy(hostile.claiming((HUGE,)))
    write_npz(path, content, compression)
    refused(path, ", x.npy, cannot be read", "cut short: .* expected 4000000000")
    # The directory of the archive may lie as well.
    write_npz(path, content, compression, file_size=8 * HUGE)
    refused(path)
    write_npz(path, content, compression, file_size=8 * HUGE, compress_size=HUGE)
    refused(path)


def test_npz_members_with_the_same_name(tmp_path):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", hostile.npy_bytes(ROWS))
        archive.writestr("x", hostile.npy_bytes(ROWS))
    refused(path, "several arrays of one name")


def test_npz_members_are_never_unpacked_to_files(tmp_path):
    path = tmp_path / "in" / "x.npz"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../out.npy", hostile.npy_bytes(ROWS))
    np.testing.assert_array_equal(np.concatenate(read_all(path)), ROWS)
    assert [entry.name for entry in tmp_path.iterdir()] == ["in"]


def test_compressed_rows_at_the_limit_are_read(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x=np.zeros((2**20, 4), np.float32))
    assert np.load(path)["x"].nbytes > 900 * path.stat().st_size
    assert files.Npz(path).open_rows(SPEC).num_rows == 2**20


def test_hdf5_inputs_lead_to_no_other_file(tmp_path):
    ROWS.tofile(tmp_path / "secret")
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = ROWS
    layout = h5py.VirtualLayout(ROWS.shape, "f4")
    layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "x", ROWS.shape)
    secret = str(tmp_path / "secret")
    for harm in (
        lambda file: file.__setitem__("x", h5py.ExternalLink("secret.h5", "/x")),
        lambda file: file.update(
            folder=h5py.ExternalLink("secret.h5", "/"), x=h5py.SoftLink("/folder/x")
        ),
        lambda file: file.create_virtual_dataset("x", layout),
        lambda file: file.create_dataset("x", ROWS.shape, "f4", external=secret),
    ):
        path = tmp_path / "x.h5"
        with h5py.File(path, "w") as file:
            harm(file)
        refused(
            path,
            "'x' (is a link to the file 'secret.h5'|keeps its rows in other files), "
            "which (is|are) not opened",
        )


def test_hdf5_groups_that_hold_each_other(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["x"] = ROWS
        group = file["/"]
        for _ in range(50):  # 2 ** 50 ways to the last one, and back
            inner = group.create_group("next")
            group["also"], group["root"] = inner, file["/"]
            group = inner
    np.testing.assert_array_equal(np.concatenate(read_all(path)), ROWS)


def test_hdf5_rows_that_were_never_written(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (HUGE, 4), "f4", chunks=(1024, 4))
    refused(path, "'x' claims 16000000000000000000 bytes", "holds 0")


def zarr_with(path, change, zarr_format=3):
    """A zarr array whose metadata was changed by hand."""
    options = {"shape": (10, 4), "chunks": (5, 4), "dtype": "f4"}
    array = zarr.create_array(path, zarr_format=zarr_format, **options)
    array[:] = ROWS
    name = path / ("zarr.json" if zarr_format == 3 else ".zarray")
    metadata = json.loads(name.read_text())
    change(metadata)
    name.write_text(json.dumps(metadata))


def test_zarr_chunks_that_fill_memory(tmp_path):
    def change(metadata):
        metadata["shape"] = [HUGE, 4]
        metadata["chunk_grid"]["configuration"]["chunk_shape"] = [HUGE, 4]

    path = tmp_path / "x.zarr"
    zarr_with(path, change)
    refused(path, "which are read as a whole; expected at most 4294967296")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_codecs_that_are_not_known(zarr_format, tmp_path):
    def change(metadata):
        if zarr_format == 2:
            metadata["filters"] = [{"id": "msgpack2"}]
        else:
            metadata["codecs"].append({"name": "sh", "configuration": {"run": "true"}})

    path = tmp_path / "x.zarr"
    zarr_with(path, change, zarr_format)
    refused(path)


def test_zarr_chunks_that_claim_to_unpack_to_more_than_there_is(tmp_path):
    path = tmp_path / "x.zarr"
    zarr_with(path, lambda metadata: None)
    # A frame of Zstandard: magic, flags, the length that it claims, an empty block.
    frame = struct.pack("<IBQ", 0xFD2FB528, 0b11100000, 2**62) + b"\x01\x00\x00"
    (path / "c/0/0").write_bytes(frame)
    with pytest.raises(MemoryError, match="x.zarr cannot be read: it asks for more m"):
        read_all(path)


def test_zarr_codecs_within_others_are_checked(tmp_path):
    path = tmp_path / "x.zarr"
    array = zarr.create_array(
        path, shape=(10, 4), shards=(10, 4), chunks=(5, 4), dtype="f4"
    )
    array[:] = ROWS
    np.testing.assert_array_equal(np.concatenate(read_all(path)), ROWS)


@pytest.mark.parametrize("place", ["c", "c/0", "x", "more"])
def test_zarr_links_are_not_followed(place, tmp_path):
    (tmp_path / "outside").mkdir()
    path = tmp_path / "x.zarr"
    zarr_with(path, lambda metadata: None)
    link = path / place
    if link.is_dir():
        link.rename(tmp_path / "moved")
    link.symlink_to(tmp_path / ("moved" if place.startswith("c") else "outside"))
    refused(path, f"/{place} is a link, which is not followed")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", "null", "", '{"node_type": 3}', '{"zarr_format": 3}']
)
def test_invalid_zarr_metadata(text, tmp_path):
    path = tmp_path / "x.zarr"
    zarr_with(path, lambda metadata: None)
    (path / "zarr.json").write_text(text)
    refused(path)


def test_folders_of_images_whose_links_multiply(tmp_path):
    """Twelve folders that each hold all others: 12! ways through them."""
    root = tmp_path / "photos"
    for number in range(12):
        (root / f"{number}").mkdir(parents=True)
    for number in range(12):
        for other in range(12):
            (root / f"{number}" / f"to{other}").symlink_to(root / f"{other}")
    began = time.monotonic()
    with pytest.raises(ValueError, match="Links lead to the folder .* more than 100"):
        files.Images(root, image_size=(4, 4)).open_rows(None)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("place", [".", "k=1"])
def test_folders_of_tables_whose_links_multiply(place, tmp_path):
    (tmp_path / "k=1").mkdir()
    (tmp_path / "k=1" / "0.parquet").touch()
    (tmp_path / "k=2").symlink_to(tmp_path / place)
    with pytest.raises(ValueError, match="Links lead to the folder .* twice. Remove"):
        file_input(tmp_path).open_rows(SPEC)


def write_kinds(folder):
    """One good input of each kind."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"x": ROWS.tolist()})
    columns = pandas.DataFrame(ROWS, columns=list("abcd"))
    np.save(folder / "x.npy", ROWS)
    np.savez(folder / "x.npz", x=ROWS)
    np.savez_compressed(folder / "z.npz", x=ROWS)
    frame.to_parquet(folder / "x.parquet")
    columns.to_csv(folder / "x.csv.gz", index=False)
    with h5py.File(folder / "x.h5", "w") as file:
        file["x"] = ROWS
    return ["x.npy", "x.npz", "z.npz", "x.parquet", "x.csv.gz", "x.h5"]


def test_files_that_are_cut_are_refused(tmp_path):
    for name in write_kinds(tmp_path):
        path = tmp_path / name
        np.testing.assert_array_equal(np.concatenate(read_all(path)), ROWS)
        whole = path.read_bytes()
        for share in (0, 0.1, 0.5, 0.9, 1 - 1e-9):
            path.write_bytes(whole[: int(len(whole) * share)])
            refused(path)


def test_a_csv_file_cut_within_a_row_is_refused(tmp_path):
    """A file cut between two rows is just a shorter file: nothing shows it."""
    path = tmp_path / "x.csv"
    path.write_text("a,b,c,d\n1,2,3,4\n5,6")
    refused(path, ", column 'c', row 1 has no value")


@pytest.mark.parametrize("length", [2**31, 2**33, 2**62, 2**63, 2**64 - 4, 2**64 - 1])
def test_records_that_claim_to_be_huge(length, tmp_path):
    head = struct.pack("<Q", length)
    content = head + struct.pack("<I", _masked_crc(head)) + b"rest"
    for path in (tmp_path / "x.tfrecord", tmp_path / "x.tfrecord.gz"):
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        rows = files.TFRecords(path, lambda record: tf.strings.length(record))
        with pytest.raises(ValueError, match=f"{path} is damaged or cut short"):
            list(rows.open_rows(None).batches(1))


def _masked_crc(content):
    """CRC-32C, masked as in TFRecord files."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def test_results_that_cannot_fit_into_memory_are_an_error():
    message = f"results of {HUGE} rows take 8{'0' * 18} bytes.*predict_to"
    with pytest.raises(ValueError, match=message):
        collected([HostBatch(0, np.zeros((4, 2), np.float32))], HUGE)


def test_special_files_are_refused(tmp_path):
    """Reading a pipe would wait for ever."""
    os.mkfifo(tmp_path / "x.npy")
    with pytest.raises(FileNotFoundError, match="There is no file .*x.npy"):
        read_all(tmp_path / "x.npy")
