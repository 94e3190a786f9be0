import pathlib

import pytest

from keras_mgpu_strategy.formats.registry import (
    output_format,
    output_suffixes,
    writer_of,
)


@pytest.mark.parametrize("suffix", output_suffixes())
def test_the_suffix_tells_the_format(suffix):
    writer = writer_of(f"some/results{suffix}")
    assert writer_of(pathlib.Path(f"a.b{suffix.upper()}")) is writer
    assert output_format(f"results{suffix}").suffix == suffix


@pytest.mark.parametrize("name", ["results", "results.h5", "results.npy.gz", ".npy"])
def test_another_suffix_is_refused_with_those_that_are_known(name):
    with pytest.raises(ValueError, match=r"one of \.npy, \.parquet, \.zarr, \.csv"):
        writer_of(name)
