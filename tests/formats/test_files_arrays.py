"""Arrays in files: .npy, .npz, HDF5 and zarr."""

import gc
import pathlib
import re
import threading
import zipfile

import h5py
import numpy as np
import pytest
import tensorflow as tf
import zarr
from reading_files import check_rows, one, read

from keras_mgpu_strategy.files import Hdf5, Npy, Npz, Zarr
from keras_mgpu_strategy.inputs import as_source
from keras_mgpu_strategy.sources.arrays import ArraySource

RNG = np.random.default_rng(0)
A = RNG.normal(size=(23, 3)).astype(np.float32)
B = RNG.integers(0, 9, (23, 2, 2))
WORDS = np.array([f"wört {i}" for i in range(23)])
TWO = {"a": one([3]), "b": one([2, 2], tf.int64, "other")}


def save_npz(path):
    np.savez(path, a=A, b=B, words=WORDS)


def save_compressed(path):
    np.savez_compressed(path, a=A, b=B, words=WORDS)


def save_hdf5(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=A, chunks=(4, 3), compression="gzip")
        file["b"] = B
        file.create_dataset("words", data=WORDS.tolist(), dtype=h5py.string_dtype())


def save_zarr(path):
    group = zarr.open_group(str(path), mode="w")
    group.create_array("a", data=A, chunks=(4, 3))
    group.create_array("b", data=B, chunks=(5, 2, 2))


def save_zarr_2(path):
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    group.create_array("a", data=A, chunks=(4, 3))
    group.create_array("b", data=B, chunks=(5, 2, 2))


FORMATS = [
    (Npz, save_npz, "x.npz"),
    (Npz, save_compressed, "x.npz"),
    (Hdf5, save_hdf5, "x.h5"),
    (Zarr, save_zarr, "x.zarr"),
    (Zarr, save_zarr_2, "x"),
]


@pytest.fixture(params=FORMATS, ids=lambda row: f"{row[1].__name__}")
def named(request, tmp_path):
    """A class that reads a file of the arrays a and b, and the file."""
    kind, save, name = request.param
    save(tmp_path / name)
    return kind, tmp_path / name


@pytest.mark.parametrize("array", [A, B, WORDS, A[:, :0], np.asfortranarray(A)])
def test_npy_rows_are_those_of_the_array(array, tmp_path):
    np.save(tmp_path / "x.npy", array)
    source = Npy(tmp_path / "x.npy").open_rows(None)
    assert source.num_rows == 23
    expected = ArraySource(array)
    assert source.spec == expected.spec
    check_rows(source, read(expected, 23))


def test_npy_without_rows(tmp_path):
    np.save(tmp_path / "x.npy", A[:0])
    source = Npy(str(tmp_path / "x.npy")).open_rows(None)
    assert source.num_rows == 0
    assert list(source.batches(4)) == []


def test_npy_is_not_read_whole(tmp_path):
    path = tmp_path / "x.npy"
    big = np.lib.format.open_memmap(path, mode="w+", shape=(2**22, 2**12))  # 128 GiB
    big[-1] = 1
    source = as_source(path)
    [batch] = source.batches(8, 2**22 - 8)
    assert batch.inputs.sum() == 2**12


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x.npy cannot be read as a .npy file of plain .*Write it with numpy.sa"),
        (b"\x93NUMPY\x01\x00v\x00{'descr'", "x.npy cannot be read as a .npy file"),
        (b"hello" * 99, "x.npy cannot be read as a .npy file"),
    ],
)
def test_npy_that_is_damaged(content, message, tmp_path):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        Npy(tmp_path / "x.npy").open_rows(None)


def test_npy_of_dates_and_of_a_single_value(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.float32(1))
    with pytest.raises(ValueError, match=r"a single value. Expected .*\(rows, ...\)"):
        Npy(path).open_rows(None)
    np.save(path, np.array(["2020-01-01"], "M8[D]"))
    with pytest.raises(ValueError, match="x.npy: x has dtype=datetime.*dates to numb"):
        Npy(path).open_rows(None)


@pytest.mark.parametrize("kind", [Npy, Npz, Hdf5, Zarr])
def test_a_missing_file(kind, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no (file|folder) .*nothing"):
        kind(tmp_path / "nothing").open_rows(None)


@pytest.mark.parametrize("kind", [Npy, Npz, Hdf5])
def test_a_folder_in_place_of_a_file(kind, tmp_path):
    with pytest.raises(ValueError, match="is a folder. Expected one .* file"):
        kind(tmp_path).open_rows(None)


@pytest.mark.parametrize("kind", [Npy, Npz, Hdf5, Zarr])
def test_what_is_not_a_path(kind):
    with pytest.raises(TypeError, match=r"Received 3 \(int\), expected a path: str"):
        kind(3).open_rows(None)


def test_arrays_by_the_names_of_inputs(named):
    kind, path = named
    source = kind(path).open_rows(TWO)
    assert source.num_rows == 23
    assert source.spec == {
        "a": tf.TensorSpec([None, 3], tf.float32),
        "b": tf.TensorSpec([None, 2, 2], tf.int64),
    }
    check_rows(source, {"a": A, "b": B})
    check_rows(source, {"a": A, "b": B}, [(5, 3)])


def test_the_structure_is_that_of_the_model(named):
    kind, path = named
    inputs = [one([2, 2], tf.int64, "b"), one([3], name="a")]
    check_rows(kind(path).open_rows(inputs), [B, A], [(6, 2)])
    check_rows(kind(path).open_rows(one([3], name="a")), A, [(6, 2)])
    check_rows(kind(path).open_rows([one([3], name="a")]), [A], [(6, 2)])


def test_arrays_by_the_names_given(named):
    kind, path = named
    for given in ("b", ["b"], {"pixels": "b"}):
        source = kind(path, given).open_rows(one([2, 2], tf.int64, "pixels"))
        check_rows(source, B, [(6, 2)])
    inputs = (one([3], name="u"), one([2, 2], tf.int64, "v"))
    for given in (["a", "b"], {"u": "a", "v": "b"}):
        check_rows(kind(path, given).open_rows(inputs), (A, B), [(6, 2)])


def test_which_array_is_not_clear(named):
    kind, path = named
    message = r"names of .*received a, b.*; expected the model inputs \['pixels'\]"
    with pytest.raises(ValueError, match=message):
        kind(path).open_rows(one([3], name="pixels"))
    with pytest.raises(ValueError, match="expected one alone, as the model declares"):
        kind(path).open_rows(None)
    with pytest.raises(ValueError, match=r"there is no 'c'; received a, b"):
        kind(path, "c").open_rows(None)
    with pytest.raises(ValueError, match=r"received \['a'\], expected one for each"):
        kind(path, ["a"]).open_rows([one([3]), one([3], name="b")])
    with pytest.raises(ValueError, match=r"a dict with the keys \['a', 'b'\]: the or"):
        kind(path, ["a", "b"]).open_rows(TWO)


def test_strings(tmp_path):
    for kind, save, name in FORMATS[:3]:
        save(tmp_path / name)
        source = kind(tmp_path / name, "words").open_rows(None)
        check_rows(source, np.array([w.encode() for w in WORDS], object), [(6, 2)])


def test_unequal_lengths(tmp_path):
    np.savez(tmp_path / "x.npz", a=A, b=B[:7])
    with pytest.raises(ValueError, match=r"x.npz: .*unequal length \(x\['a'\]: 23"):
        Npz(tmp_path / "x.npz").open_rows(TWO)


def test_members_of_an_uncompressed_npz_are_mapped(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=A, f=np.asfortranarray(B), none=A[:0])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("notes.txt", "no array")
    source = Npz(path, "a").open_rows(None)
    [batch] = source.batches(23)
    assert not batch.inputs.flags.owndata and not batch.inputs.flags.writeable
    check_rows(Npz(path, "f").open_rows(None), B, [(6, 2)])
    assert Npz(path, "none").open_rows(None).num_rows == 0
    with pytest.raises(ValueError, match="notes.txt, cannot be read as an array"):
        Npz(path, "notes.txt").open_rows(None)


def test_damage_ends_in_clear_errors(named):
    """Cut short at many places, files of every format are refused by name."""
    kind, path = named
    places = [path, path / "a/c/0/0", path / "a/0.0"]
    broken = next(place for place in places if place.is_file())
    whole = broken.read_bytes()
    for size in np.linspace(0, len(whole) - 1, 12).astype(int):
        broken.write_bytes(whole[:size])
        with pytest.raises((ValueError, OSError), match=re.escape(str(path))):
            read(kind(path, "a").open_rows(None), 8)


def test_a_compressed_member_is_checked(tmp_path):
    path = tmp_path / "x.npz"
    save_compressed(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 8] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match="x.npz, a.npy, cannot be read as an array"):
        Npz(path).open_rows(TWO)


def test_hdf5_datasets_in_groups_and_soft_links(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["train/images"] = A
        file["train/latest"] = h5py.SoftLink("/train/images")
        file["alias"] = h5py.SoftLink("train")
        file["loop"] = h5py.SoftLink("/loop")
        file["nothing"] = h5py.SoftLink("/no/where")
        file["empty"] = h5py.Empty("f4")
        file["single"] = 3.0
    for name in ("train/images", "train/latest"):
        check_rows(Hdf5(path, name).open_rows(None), A, [(6, 2)])
    for name in ("loop", "nothing"):
        with pytest.raises(ValueError, match=f"{name}' is a link that leads nowhere"):
            Hdf5(path, name).open_rows(None)
    for name in ("alias", "empty", "single"):
        with pytest.raises(ValueError, match=f"{name}' is not a data set with rows"):
            Hdf5(path, name).open_rows(None)


def open_files(path):
    links = pathlib.Path("/proc/self/fd").iterdir()
    return [link for link in links if _target(link) == str(path)]


def _target(link):
    try:
        return str(link.readlink())
    except OSError:
        return None


def test_an_hdf5_file_is_open_while_it_is_used(tmp_path):
    path = tmp_path / "x.h5"
    save_hdf5(path)
    source = Hdf5(path).open_rows(TWO)
    batches = source.batches(4)
    del source
    gc.collect()
    assert len(open_files(path)) == 1
    assert sum(batch.num_rows for batch in batches) == 23
    del batches
    gc.collect()
    assert open_files(path) == []
    with pytest.raises(ValueError, match="there is no 'c'"):
        Hdf5(path, "c").open_rows(None)
    gc.collect()
    assert open_files(path) == []


def test_an_hdf5_file_that_does_not_fit_is_closed(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["a"], file["b"] = A, B[:7]
    with pytest.raises(ValueError, match="x.h5: .*unequal length") as caught:
        Hdf5(path).open_rows(TWO)
    del caught
    gc.collect()
    assert open_files(path) == []


def test_another_thread_reads(named):
    kind, path = named
    source, found = kind(path).open_rows(TWO), []
    thread = threading.Thread(target=lambda: found.append(read(source, 4)))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(found[0]["a"], A)


def test_a_single_zarr_array(tmp_path):
    zarr.create_array(store=str(tmp_path / "x"), data=A, chunks=(4, 3))
    check_rows(as_source(tmp_path / "x"), A)
    with pytest.raises(ValueError, match="is one zarr array, received arrays='a'"):
        Zarr(tmp_path / "x", "a").open_rows(None)


@pytest.mark.parametrize("cut", [0, 8, 20, -1])
def test_blosc_chunks_that_are_cut_short(cut, tmp_path):
    """For some of them Blosc would return what lies after them in memory."""
    codec = zarr.codecs.BloscCodec()
    zarr.create_array(store=str(tmp_path / "x"), data=A, compressors=codec)
    check_rows(Zarr(tmp_path / "x").open_rows(None), A, [(6, 2)])
    chunk = tmp_path / "x/c/0/0"
    chunk.write_bytes(chunk.read_bytes()[:cut])
    with pytest.raises(ValueError, match=f"the chunk {chunk} is damaged"):
        Zarr(tmp_path / "x").open_rows(None)


def test_zarr_arrays_in_groups(tmp_path):
    group = zarr.open_group(str(tmp_path / "x.zarr"), mode="w")
    group.create_group("train").create_array("a", data=A)
    check_rows(as_source(tmp_path / "x.zarr"), A, [(6, 2)])
    check_rows(Zarr(tmp_path / "x.zarr", "train/a").open_rows(None), A, [(6, 2)])
    with pytest.raises(ValueError, match="there is no '../x.zarr/train/a'"):
        Zarr(tmp_path / "x.zarr", "../x.zarr/train/a").open_rows(None)


def test_a_folder_that_is_not_zarr(tmp_path):
    with pytest.raises(
        ValueError, match="is not a zarr folder: it has none of zarr.json"
    ):
        Zarr(tmp_path).open_rows(None)
    (tmp_path / "zarr.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be opened as a zarr array or group"):
        Zarr(tmp_path).open_rows(None)
