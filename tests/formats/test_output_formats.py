import pathlib

import pytest

from keras_mgpu_strategy.formats.writable import FORMATS, format_of


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_suffix_tells_the_format(suffix):
    assert format_of(f"some/results{suffix}") is FORMATS[suffix]
    assert format_of(pathlib.Path(f"a.b{suffix.upper()}")) is FORMATS[suffix]


@pytest.mark.parametrize("name", ["results", "results.h5", "results.npy.gz", ".npy"])
def test_another_suffix_is_refused_with_those_that_are_known(name):
    with pytest.raises(ValueError, match=r"one of \.npy, \.parquet, \.zarr, \.csv"):
        format_of(name)
