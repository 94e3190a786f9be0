"""Model files with hostile containers."""

import stat
import zipfile

import h5py
import keras
import numpy as np
import pytest

from keras_mgpu_strategy.models import read
from tests.security import hostile

pytestmark = pytest.mark.filterwarnings(
    "ignore:You are saving your model as an HDF5 file", "ignore:Duplicate name"
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Suffix -> a file that Keras wrote."""
    folder = tmp_path_factory.mktemp("models")
    return {
        end: hostile.save_model(folder / f"plain{end}") for end in (".keras", ".h5")
    }


def add_member(archive, name, content=b"x", mode=0o644):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    archive.writestr(info, content)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../out", r"holds '../out', which leads out"),
        ("assets/../../out", "which leads out"),
        ("/etc/out", "which leads out"),
        ("c:/out", "which leads out"),
        ("assets\\..\\out", "which leads out"),
        ("config.json", "holds 'config.json' 2 times"),
    ],
)
def test_members_that_lead_out_are_refused(name, message, saved, tmp_path, strategies):
    path = tmp_path / "evil.keras"
    path.write_bytes(saved[".keras"].read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        add_member(archive, "assets/more.txt")
        add_member(archive, name)
    with pytest.raises(ValueError, match=f"evil.keras' .*{message}"):
        read(path, strategies[1])
    assert [entry.name for entry in tmp_path.iterdir()] == ["evil.keras"]


def test_links_in_archives_are_refused(saved, tmp_path, strategies):
    path = tmp_path / "evil.keras"
    path.write_bytes(saved[".keras"].read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        add_member(archive, "assets", b"/etc", stat.S_IFLNK | 0o777)
    with pytest.raises(ValueError, match="evil.keras' holds the link 'assets'"):
        read(path, strategies[1])


def test_encrypted_members_are_refused(saved, tmp_path, strategies):
    content = bytearray(saved[".keras"].read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 8] |= 1
    (tmp_path / "evil.keras").write_bytes(content)
    with pytest.raises(ValueError, match="evil.keras' holds .*which is encrypted"):
        read(tmp_path / "evil.keras", strategies[1])


def test_archives_that_unpack_to_far_more_are_refused(saved, tmp_path, strategies):
    path = tmp_path / "evil.keras"
    path.write_bytes(saved[".keras"].read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        add_member(archive, "assets/zeros")
        archive.getinfo("assets/zeros").file_size = 269 * 10**6
    message = "evil.keras' has [0-9]+ bytes and would unpack to 269"
    with pytest.raises(ValueError, match=message):
        read(path, strategies[1])


def test_an_archive_that_was_compressed_is_read(saved, tmp_path, strategies):
    path = tmp_path / "small.keras"
    with (
        zipfile.ZipFile(saved[".keras"]) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    whole = read(saved[".keras"], strategies[1]).model.get_weights()
    for ours, theirs in zip(
        read(path, strategies[1]).model.get_weights(), whole, strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def first_array(file):
    """The path of the first array of weights."""
    found = []
    file.visit(found.append)
    return next(name for name in found if isinstance(file[name], h5py.Dataset))


def external_link(file, folder):
    name = first_array(file)
    del file[name]
    file[name] = h5py.ExternalLink(str(folder / "secret.h5"), "/x")


def external_group(file, folder):
    file["more"] = h5py.ExternalLink(str(folder / "secret.h5"), "/")


def external_storage(file, folder):
    name = first_array(file)
    shape = file[name].shape
    del file[name]
    file.create_dataset(name, shape, "f4", external=str(folder / "secret"))


def virtual_array(file, folder):
    name = first_array(file)
    shape = file[name].shape
    layout = h5py.VirtualLayout(shape, "f4")
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "x", shape)
    del file[name]
    file.create_virtual_dataset(name, layout)


def never_written(file, folder):
    file.create_dataset("huge", (2**40,), "f4", chunks=(2**10,))


HARM = {
    external_link: "links to another file",
    external_group: "links to another file at 'more'",
    external_storage: "keeps the values of .* in other files",
    virtual_array: "keeps the values of .* in other files",
    never_written: "holds 0 bytes for '/huge', which claims 4398046511104",
}


@pytest.mark.parametrize("end", [".keras", ".h5"])
@pytest.mark.parametrize("harm", HARM)
def test_weights_in_other_files_are_refused(end, harm, saved, tmp_path, strategies):
    np.full(64, 7, np.float32).tofile(tmp_path / "secret")
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.full((4, 2), 7, np.float32)
    path = tmp_path / f"evil{end}"
    if end == ".h5":
        content = saved[end].read_bytes()
        path.write_bytes(hostile.change_h5(content, lambda file: harm(file, tmp_path)))
    else:
        content = hostile.weights_of(saved[end])
        weights = hostile.change_h5(content, lambda file: harm(file, tmp_path))
        hostile.with_members(saved[end], path, {"model.weights.h5": weights})
    with pytest.raises(ValueError, match=f"evil{end}' {HARM[harm]}"):
        read(path, strategies[1])


def test_groups_that_hold_each_other_end(saved, tmp_path, strategies):
    def knot(file):
        group = file.create_group("a")
        for number in range(40):
            inner = group.create_group("next")
            group["also"], group["root"] = inner, file["/"]
            group = inner
            assert number < 40

    weights = hostile.change_h5(hostile.weights_of(saved[".keras"]), knot)
    path = tmp_path / "knot.keras"
    hostile.with_members(saved[".keras"], path, {"model.weights.h5": weights})
    model = read(path, strategies[1]).model
    assert isinstance(model, keras.Model)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_weights_that_are_cut_in_a_whole_archive(share, saved, tmp_path, strategies):
    weights = hostile.weights_of(saved[".keras"])
    cut = weights[: int(len(weights) * share)]
    path = tmp_path / "cut.keras"
    hostile.with_members(saved[".keras"], path, {"model.weights.h5": cut})
    with pytest.raises(ValueError, match="cut.keras' is truncated or damaged"):
        read(path, strategies[1])


@pytest.mark.parametrize("value", [3, "{", "[" * 10_000, b"\xff", np.arange(3)])
def test_a_legacy_configuration_that_is_none(value, saved, tmp_path, strategies):
    path = tmp_path / "x.h5"

    def change(file):
        file.attrs["model_config"] = value

    path.write_bytes(hostile.change_h5(saved[".h5"].read_bytes(), change))
    with pytest.raises(ValueError, match=r"x.h5"):
        read(path, strategies[1])


def test_a_legacy_configuration_in_bytes_is_read(saved, tmp_path, strategies):
    """As early versions of Keras wrote it."""
    path = tmp_path / "x.h5"

    def change(file):
        text = file.attrs["model_config"]
        file.attrs["model_config"] = np.bytes_(text.encode())

    path.write_bytes(hostile.change_h5(saved[".h5"].read_bytes(), change))
    assert read(path, strategies[1]).input_spec.shape.as_list() == [None, 4]
