"""Arrays of HDF5 and zarr whose attributes change what their numbers mean."""

import h5py
import numpy as np
import pytest
import zarr
from reading import rows

from keras_mgpu_strategy.files import Hdf5, Zarr
from keras_mgpu_strategy.inputs import as_source
from keras_mgpu_strategy.sources.row_errors import BadRow

X = np.arange(22, dtype=np.float32).reshape(11, 2)


def _hdf5(path, array, attributes):
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("x", data=array)
        for name, value in attributes.items():
            # As netCDF writes them: arrays of one value.
            is_text = isinstance(value, str)
            dataset.attrs[name] = np.bytes_(value) if is_text else np.atleast_1d(value)
    return Hdf5(path).open_rows(None)


def _plain(value):
    return np.asarray(value).tolist()


def _zarr(zarr_format):
    def make(path, array, attributes):
        stored = zarr.create_array(str(path), data=array, zarr_format=zarr_format)
        for name, value in attributes.items():
            stored.attrs[name] = value if isinstance(value, str) else _plain(value)
        return Zarr(path).open_rows(None)

    return make


@pytest.fixture(params=[_hdf5, _zarr(2), _zarr(3)], ids=["hdf5", "zarr2", "zarr3"])
def stored(request, tmp_path):
    """Writes an array with attributes and opens it as a source."""
    return lambda array, **attributes: request.param(tmp_path / "x", array, attributes)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("scale_factor", np.float32(0.5), "scale_factor=.*0.5"),
        ("add_offset", 273.15, "add_offset=.*273.15"),
        ("_Unsigned", "true", "_Unsigned=true"),
    ],
)
def test_packed_numbers_are_refused(name, value, shown, stored):
    message = f"x: x has {shown}.* among its attributes, .*Pass the variable that xarr"
    with pytest.raises(ValueError, match=message):
        stored(X.astype(np.int16), **{name: value})


@pytest.mark.parametrize(
    "attributes",
    [
        {"scale_factor": 1.0, "add_offset": 0.0, "_Unsigned": "false"},
        {"_FillValue": np.float32(-1), "missing_value": [-2.0, -3.0]},
        {"valid_min": 0.0, "valid_max": np.float32(21)},
        {"valid_range": [0.0, 21.0]},
        {"units": "days since 2000-01-01", "calendar": "noleap", "long_name": "a"},
    ],
)
def test_attributes_that_change_no_value(attributes, stored):
    np.testing.assert_array_equal(rows(stored(X, **attributes)), X)


@pytest.mark.parametrize(
    ("dtype", "attributes"),
    [
        ("f4", {"_FillValue": np.float32(13)}),
        ("i2", {"_FillValue": np.float32(13)}),
        ("i8", {"missing_value": [99.0, 13.0]}),
        ("i2", {"valid_max": np.float32(12)}),
        ("f8", {"valid_range": [-1.0, 12.5]}),
    ],
)
def test_missing_values_are_an_error(dtype, attributes, stored):
    batches = stored(X.astype(dtype), **attributes).batches(4)
    assert next(batches).num_rows == 4
    message = "x: x, row 6 holds 13.*which is a missing value by the attributes of"
    with pytest.raises(BadRow, match=message):
        next(batches)


def test_values_below_the_valid_ones(stored):
    with pytest.raises(BadRow, match="row 0 holds 0.0, which is a missing value"):
        rows(stored(X, valid_min=np.float32(1)))


@pytest.mark.filterwarnings("ignore:.*does not have a Zarr V3 specification")
def test_strings_have_no_missing_value(stored):
    text = np.array([[b"a", b"bc"]], "S2")
    source = stored(text, _FillValue="a", scale_factor=2.0)
    assert rows(source).tolist() == text.tolist()


def test_arrays_that_are_passed_themselves(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        packed = file.create_dataset("x", data=X)
        packed.attrs["add_offset"] = 1.0
        with pytest.raises(ValueError, match=r"^x\['a'\] has add_offset=1.0 among its"):
            as_source({"a": packed})
        np.testing.assert_array_equal(rows(as_source(packed[:])), X)


def test_what_xarray_writes_to_zarr(tmp_path):
    """It stores the marker of missing values elsewhere than netCDF does."""
    x = X.copy()
    three = zarr.create_array(str(tmp_path / "3"), data=x)
    three.attrs["_FillValue"] = "AAAAAAAA+H8="  # NaN, the double in base64
    np.testing.assert_array_equal(rows(as_source(three)), x)
    three.attrs["_FillValue"] = "AAAAAAAAKkA="  # 13.0
    with pytest.raises(BadRow, match="x, row 6 holds 13.0, which is a missing value"):
        rows(as_source(three))
    three.attrs["_FillValue"] = "no number"
    with pytest.raises(ValueError, match="x has .* among its attributes"):
        as_source(three)
    two = zarr.create_array(str(tmp_path / "2"), data=x, zarr_format=2, fill_value=13)
    np.testing.assert_array_equal(rows(as_source(two)), x)
    two.attrs["_ARRAY_DIMENSIONS"] = ["r", "c"]
    with pytest.raises(BadRow, match="x, row 6 holds 13.0, which is a missing value"):
        rows(as_source(two))
