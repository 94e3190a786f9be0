"""Hostile headers of files and arguments of the command line."""

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_mgpu_strategy.cli.values import _image_size, _shard
from keras_mgpu_strategy.devices.names import parse_devices
from keras_mgpu_strategy.formats.npy.header import NpyHeader, read_header
from keras_mgpu_strategy.outputs.shards import Shard
from keras_mgpu_strategy.outputs.strict_json import parse
from tests.security import hostile
from tests.security.fuzzing import parsers

HEADERS = st.one_of(
    st.binary(max_size=300),
    st.text("{}[](),:'\"\\ <>|fOUb0123456789-+*descrshapefortran_orderTrue\n").map(
        lambda text: text.encode("latin1")
    ),
    st.builds(
        lambda shape, dtype: hostile.claiming(shape, dtype).encode("latin1"),
        st.lists(st.one_of(st.integers(), st.integers(0, 9), st.booleans())).map(tuple),
        st.sampled_from(["<f4", "|O", "|S0", "<U4", ">i8", "<V9", "<m8[s]", "?", "x"]),
    ),
)
VERSIONS = st.sampled_from([(1, 0), (2, 0), (3, 0), (0, 1)])


@parsers
@given(header=HEADERS, version=VERSIONS, values=st.binary(max_size=40))
def test_headers_of_npy_files(header, version, values):
    content = hostile.raw_npy(header, values, version)
    try:
        found = read_header(io.BytesIO(content))
    except ValueError as error:
        assert str(error)
        return
    assert isinstance(found, NpyHeader) and not found.dtype.hasobject
    assert all(type(size) is int and size >= 0 for size in found.shape)
    assert 10 <= found.offset <= len(content) and found.num_bytes < 2**64


@parsers
@given(
    array=st.sampled_from(["<f4", ">i8", "?1", "S3", "<U2"]),
    shape=st.lists(st.integers(0, 4)),
)
def test_headers_that_numpy_writes(array, shape):
    whole = hostile.npy_bytes(np.zeros(shape[:5], array.strip("1") or "?"))
    found = read_header(io.BytesIO(whole))
    assert (list(found.shape), found.num_bytes) == (shape[:5], len(whole))


@parsers
@given(content=st.binary(max_size=60))
def test_strict_json_is_json(content):
    try:
        value = parse(content)
    except ValueError:
        return
    assert json.loads(content.decode()) == value


@parsers
@given(text=st.one_of(st.text(max_size=12), st.text("0123456789/-+ ٣", max_size=9)))
def test_shards_on_the_command_line(text):
    try:
        index, count = _shard(text)
    except ValueError as error:
        assert f"--shard={text}. Expected I/N" in str(error)
        return
    assert text.isascii() and 0 <= index < count
    assert Shard(index, count).rows(10**12).stop <= 10**12


@pytest.mark.parametrize("text", ["9" * 5000 + "/2", "0/" + "9" * 5000, "٣/٤"])
def test_invalid_numbers_of_shards(text):
    with pytest.raises(ValueError, match="Expected I/N"):
        _shard(text)


@parsers
@given(text=st.one_of(st.text(max_size=12), st.text("0123456789xX٣", max_size=9)))
def test_sizes_of_images_on_the_command_line(text):
    try:
        height, width = _image_size(text)
    except ValueError as error:
        assert f"--image_size={text}. Expected height and width" in str(error)
        return
    assert text.isascii() and 0 < height < 10**6 and 0 < width < 10**6


DEVICES = st.text("gpucGPUC:/,0123456789device_physical ٣", max_size=20)


@parsers
@given(text=st.one_of(st.text(max_size=12), DEVICES))
def test_names_of_devices(text):
    try:
        requests = parse_devices(text)
    except ValueError as error:
        assert 'Expected names like "gpu:0"' in str(error)
        return
    assert requests and text.isascii()
    assert all(r.index is None or 0 <= r.index < 10**9 for r in requests)


@pytest.mark.parametrize("text", ["gpu:" + "9" * 5000, "gpu:٣", "cpu:99999999999"])
def test_invalid_numbers_of_devices(text):
    with pytest.raises(
        ValueError, match='Unknown device .*Expected names like "gpu:0"'
    ):
        parse_devices(text)
