"""Memory grows with neither the number nor the lengths of rows of unequal length."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PEAKS = """
import re, sys
import numpy as np
import tensorflow as tf
import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.inputs.opening import as_source

SPEC = tf.TensorSpec([None, None], tf.int64, name="x")

def generator(num_batches):
    random = np.random.default_rng(0)
    for _ in range(num_batches):
        yield [random.integers(0, 9, n) for n in random.integers(1, 400, 64)]

def peak(x):
    source = as_source(x, input_spec=SPEC, ragged=True)
    tokens = sum(batch.inputs.packed().values.size for batch in source.batches(4096))
    assert tokens > 0
    # Not ru_maxrss, which begins with that of the process that started this one.
    status = open("/proc/self/status").read()
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) // 1024

print(*[peak(generator(n)) for n in (100, 2000)], *map(peak, sys.argv[1:]))
"""


def save(path, lengths, row_group_size):
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = np.random.default_rng(0).integers(0, 2**40, offsets[-1])
    lists = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values))
    pq.write_table(pa.table({"x": lists}), path, row_group_size=row_group_size)
    return str(path)


def test_memory_grows_neither_with_rows_nor_with_their_lengths(tmp_path):
    random = np.random.default_rng(1)
    few = save(tmp_path / "few.parquet", random.integers(1, 99, 50_000), 2**20)
    many = save(tmp_path / "many.parquet", random.integers(1, 99, 600_000), 2**20)
    # 240 MB, of which the first rows are short.
    lengths = np.repeat([5, 200_000], [100, 150])
    long = save(tmp_path / "long.parquet", lengths, 2**20)
    command = [sys.executable, "-c", PEAKS, few, many, long]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    short, streamed, of_few, of_many, of_long = map(int, done.stdout.split())
    assert streamed < short + 20
    assert of_many < of_few + 60
    assert of_long < of_few + 60
