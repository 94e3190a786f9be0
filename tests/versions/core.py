"""Without extras: none of their packages is loaded, and what needs one names it.

The session `core` of `noxfile.py`, in which no extra is installed, runs this file.
"""

import importlib.util
import struct
import sys

import numpy as np
import pytest

import keras_mgpu_strategy as mgpu
from tests.versions.smoke import EXAMPLES, mgpu_command

# Keras itself needs h5py and rich.
NOT_INSTALLED = ("matplotlib", "pandas", "PIL", "pyarrow", "ray", "tf_keras", "zarr")
IMAGES = np.load(EXAMPLES / "digits_images.npy")[:50]


@pytest.fixture(scope="module")
def predictor(strategies):
    with strategies[2].scope():
        return mgpu.load(EXAMPLES / "digits.keras")


def test_no_extra_is_installed():
    assert not [name for name in NOT_INSTALLED if importlib.util.find_spec(name)]


def test_the_api_loads_without_optional_packages():
    assert all(hasattr(mgpu, name) for name in mgpu.__all__)
    assert not {*NOT_INSTALLED} & {*sys.modules}


@pytest.mark.parametrize(
    ("suffix", "extra"), [(".parquet", "parquet"), (".zarr", "zarr")]
)
def test_an_output_that_needs_an_extra_names_it(predictor, tmp_path, suffix, extra):
    path = tmp_path / f"out{suffix}"
    with pytest.raises(ImportError, match=rf"keras_mgpu_strategy\[{extra}\]"):
        predictor.predict_to(path, IMAGES)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "extra"),
    [("rows.parquet", "parquet"), ("rows.csv", "pandas"), ("rows.zarr", "zarr")],
)
def test_an_input_that_needs_an_extra_names_it(predictor, tmp_path, name, extra):
    path = tmp_path / name
    if path.suffix == ".zarr":
        path.mkdir()
        (path / "zarr.json").write_text("{}")
    else:
        path.write_bytes(b"PAR1 a,b\n1,2\nPAR1")
    with pytest.raises(ImportError, match=rf"keras_mgpu_strategy\[{extra}\]"):
        predictor.predict(path)


def test_an_image_that_needs_an_extra_names_it(tmp_path):
    """A BMP file with one pixel and a palette of two colors."""
    head = struct.pack("<2sIHHI", b"BM", 66, 0, 0, 62)
    head += struct.pack("<IiiHHIIiiII", 40, 1, 1, 1, 1, 0, 4, 0, 0, 2, 0)
    (tmp_path / "a.bmp").write_bytes(head + bytes(8) + bytes(4))
    rows = mgpu.files.Images(tmp_path, (8, 8)).open_rows(None)
    with pytest.raises(ValueError, match=r"a.bmp.*keras_mgpu_strategy\[images\]"):
        list(rows.batches(1))


def test_the_ray_engine_names_its_extra():
    with pytest.raises(ImportError, match=r"keras_mgpu_strategy\[ray\]"):
        mgpu.load(EXAMPLES / "digits.keras", engine="ray")


def test_the_command_line_names_an_extra_in_one_line(tmp_path):
    result = mgpu_command(
        *("predict", EXAMPLES / "digits.keras", EXAMPLES / "digits_images.npy"),
        "--output=out.parquet",
        cwd=tmp_path,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("mgpu: ") and result.stderr.count("\n") == 1
    assert 'pip install "keras_mgpu_strategy[parquet]"' in result.stderr
