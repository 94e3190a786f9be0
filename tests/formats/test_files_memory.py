"""Memory does not grow with the files that are read."""

import subprocess
import sys

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

PEAKS = """
import resource, sys
import tensorflow as tf
from keras_mgpu_strategy.inputs import as_source

def peak(path):
    spec = tf.TensorSpec([None, 4], tf.float32, name="x")
    source = as_source(path, input_spec=spec)
    # Touches all rows, as a model does.
    total = sum(int(batch.inputs[:, 0].size) for batch in source.batches(4096)
                if batch.inputs.sum() >= 0)
    assert total == source.num_rows or source.num_rows is None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

print(*[peak(path) for path in sys.argv[1:]])
"""
SMALL, LARGE = 2**18, 2**23


def save_npy(path, rows):
    np.save(path, rows)


def save_npz(path, rows):
    np.savez(path, x=rows)


def save_parquet(path, rows):
    """Two row groups, each far larger than a batch."""
    table = pa.table({name: rows[:, i] for i, name in enumerate("abcd")})
    pq.write_table(table, path, compression="none", row_group_size=LARGE // 2)


def save_lists(path, rows):
    lists = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), 4)
    pq.write_table(pa.table({"x": lists}), path, row_group_size=LARGE // 2)


def save_hdf5(path, rows):
    with h5py.File(path, "w") as file:
        file["x"] = rows


def save_zarr(path, rows):
    zarr.create_array(store=path, data=rows, chunks=(2**16, 4), compressors=None)


def save_csv(path, rows):
    with open(path, "w") as file:
        file.write("a,b,c,d\n")
        file.write("1.5,2,3.25,4\n" * (len(rows) // 4))


FORMATS = [
    ("x.npy", save_npy),
    ("x.npz", save_npz),
    ("x.parquet", save_parquet),
    ("lists.parquet", save_lists),
    ("x.h5", save_hdf5),
    ("x.zarr", save_zarr),
    ("x.csv", save_csv),
]


@pytest.mark.slow
def test_memory_is_that_of_a_small_file(tmp_path):
    """128 MiB take hardly more than 4 MiB, one after the other in one process."""
    paths = []
    for size in (SMALL, LARGE):
        (tmp_path / str(size)).mkdir()
        rows = np.arange(size * 4, dtype=np.float32).reshape(size, 4)
        for name, save in FORMATS:
            paths.append(str(tmp_path / str(size) / name))
            save(paths[-1], rows)
    command = [sys.executable, "-c", PEAKS, *paths]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    peaks = dict(zip(paths, map(int, done.stdout.split()), strict=True))
    before = peaks[paths[len(FORMATS) - 1]]
    assert max(peaks.values()) - before < 40, peaks
