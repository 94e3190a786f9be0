"""Kinds of inputs and outputs on simulated GPUs, compared with the CPU.

Each function returns failures by case.
"""

import pathlib
import tempfile

import h5py
import keras
import numpy as np
import pandas
import scipy.sparse
import tensorflow as tf
import zarr
from common import ENGINES, are_same, dense, made_on_cpu, on_cpu, on_gpus, rows_of

import keras_mgpu_strategy as mgpu

NAMES = [f"c{column}" for column in range(8)]


def matrix(num_gpus, per_device, compile="auto"):
    """All kinds of inputs and outputs with both engines."""
    wrong = []
    per_replica = {"per_device": per_device, "compile": compile}
    with mgpu.scope("gpu", replicas_per_device=per_device):  # before models are made
        pass
    for engine in ENGINES:
        for case in (_rows, _inputs, _pairs, _methods, _files):
            for label, found, expected in case(
                num_gpus * per_device, engine, per_replica
            ):
                if not are_same(found, expected):
                    wrong.append(f"{engine}: {label}")
    return wrong


def parallel(num_gpus):
    """`make_parallel`, for batches that the devices do and do not divide."""
    wrong = []
    with tf.device("GPU:0"):
        model = dense()
        several = mgpu.make_parallel(model, num_gpus)
    for num_rows in (1, num_gpus, 8 * num_gpus, 8 * num_gpus + 1, 100):
        rows = rows_of(num_rows)
        found = several.predict(rows, batch_size=8 * num_gpus, verbose=0)
        if not are_same(found, on_cpu(model, rows)):
            wrong.append(f"{num_rows} rows")
    return wrong


def _rows(num_replicas, engine, per_replica):
    """Numbers of rows that the replicas do and do not divide."""
    model = made_on_cpu(dense)
    predictor = on_gpus(model, engine=engine, **per_replica)
    assert predictor.num_replicas == num_replicas
    for num_rows in (0, 1, num_replicas, 3 * num_replicas + 1, 1000):
        rows = rows_of(num_rows)
        for batch_size in (16 * num_replicas, None):
            found = predictor.predict(rows, batch_size, verbose=0)
            yield f"{num_rows} rows by {batch_size}", found, on_cpu(model, rows)


def _inputs(num_replicas, engine, per_replica):
    model, rows = made_on_cpu(dense), rows_of(8 * num_replicas + 5)
    predictor = on_gpus(model, engine=engine, **per_replica)
    expected = on_cpu(model, rows)
    parts = [rows[first : first + 7] for first in range(0, len(rows), 7)]
    with tempfile.TemporaryDirectory() as folder:
        kinds = {
            "array": rows,
            "float64": rows.astype(np.float64),
            "tensor": tf.constant(rows),
            "frame": pandas.DataFrame(rows, columns=NAMES),
            "sparse": scipy.sparse.csr_matrix(rows),
            "generator": iter(parts),
            "data set": tf.data.Dataset.from_tensor_slices(rows).batch(7),
            **_kinds_of_files(pathlib.Path(folder), rows),
        }
        for kind, x in kinds.items():
            yield kind, predictor.predict(x, 4 * num_replicas, verbose=0), expected


def _kinds_of_files(folder, rows):
    """The same rows in files."""
    table = pandas.DataFrame(rows, columns=NAMES)
    np.save(folder / "x.npy", rows)
    np.savez(folder / "x.npz", rows)
    table.to_parquet(folder / "x.parquet")
    table.to_csv(folder / "x.csv", index=False, float_format="%.9g")
    with h5py.File(folder / "x.h5", "w") as file:
        file["rows"] = rows
    zarr.save(str(folder / "x.zarr"), rows)
    with tf.io.TFRecordWriter(str(folder / "x.tfrecord")) as writer:
        for row in rows:
            writer.write(row.tobytes())

    def parse(record):
        return tf.reshape(tf.io.decode_raw(record, tf.float32), [8])

    return {
        "memory map": np.load(folder / "x.npy", mmap_mode="r"),
        **{
            name: str(folder / name)
            for name in ("x.npy", "x.npz", "x.parquet", "x.csv", "x.h5", "x.zarr")
        },
        "records": mgpu.files.TFRecords(folder / "x.tfrecord", parse),
    }


def _pair():
    """Three inputs by name, two of them alike; a dict of three outputs."""
    left = keras.Input((8,), name="left")
    again = keras.Input((8,), name="again")  # like the other one
    right = keras.Input((3,), dtype="int32", name="right")
    embedded = keras.layers.Flatten()(keras.layers.Embedding(50, 2)(right))
    joined = keras.layers.Concatenate()([left, again, embedded])
    outputs = {
        "score": keras.layers.Dense(2)(joined),
        "same": keras.layers.Lambda(lambda x: x + 1)(right),
        "half": keras.layers.Lambda(lambda x: keras.ops.cast(x, "float16"))(left),
    }
    return keras.Model({"left": left, "again": again, "right": right}, outputs)


def _pairs(num_replicas, engine, per_replica):
    model, left = made_on_cpu(_pair), rows_of(5 * num_replicas + 3)
    right = np.random.default_rng(2).integers(0, 50, (len(left), 3)).astype(np.int32)
    x = {"left": left, "again": -left, "right": right}
    predictor = on_gpus(model, engine=engine, **per_replica)
    expected = on_cpu(model, x)
    kinds = {
        "dict": x,
        "data set of dicts": tf.data.Dataset.from_tensor_slices(x).batch(3),
        "generator of dicts": iter([x]),
        "narrow integers": {**x, "right": right.astype(np.int8)},
    }
    for kind, given in kinds.items():
        yield kind, predictor.predict(given, 4 * num_replicas, verbose=0), expected


def _methods(num_replicas, engine, per_replica):
    model, rows = made_on_cpu(_listing), rows_of(6 * num_replicas + 1)
    expected = on_cpu(model, rows)
    listing = on_gpus(model, engine=engine, **per_replica)
    yield "list", listing.predict(rows, 4 * num_replicas, verbose=0), expected
    model = made_on_cpu(dense)
    predictor = on_gpus(model, engine=engine, **per_replica)
    expected = on_cpu(model, rows)
    size = 4 * num_replicas
    yield "proba", predictor.predict_proba(rows, size, verbose=0), expected
    classes = predictor.predict_classes(rows, size, verbose=0)
    yield "classes", classes, np.argmax(expected, axis=-1)
    best = predictor.predict_top_k(rows, 2, size, verbose=0)
    order = np.argsort(-expected, axis=-1, kind="stable")[:, :2]
    yield "best classes", best["classes"], order
    yield "their scores", best["scores"], np.take_along_axis(expected, order, -1)
    half = on_gpus(model, engine=engine, output_dtype="float16", **per_replica)
    cast = predictor.predict(rows, size, verbose=0).astype("float16")
    yield "cast", half.predict(rows, size, verbose=0), cast
    yield "one batch", predictor.predict_on_batch(rows), expected
    parts = [batch.outputs for batch in predictor.predict_iter(rows, size)]
    yield "batches", np.concatenate(parts), expected
    given = [rows[:2], rows[2:]]
    yield "of batches", np.concatenate(list(predictor.predict_batches(given))), expected


def _listing():
    inputs = keras.Input((8,))
    return keras.Model(inputs, [keras.layers.Dense(1)(inputs), inputs * 2])


def _files(num_replicas, engine, per_replica):
    model, rows = made_on_cpu(dense), rows_of(6 * num_replicas + 1)
    predictor = on_gpus(model, engine=engine, **per_replica)
    expected = predictor.predict(rows, 4 * num_replicas, verbose=0)
    readers = {
        "npy": np.load,
        "parquet": lambda path: np.stack(pandas.read_parquet(path)["output"]),
        "csv": lambda path: pandas.read_csv(path).drop(columns="row"),
        "zarr": lambda path: np.asarray(zarr.open(path, mode="r")["output"]),
    }
    with tempfile.TemporaryDirectory() as folder:
        for kind, read in readers.items():
            path = f"{folder}/scores.{kind}"
            predictor.predict_to(path, rows, 4 * num_replicas, verbose=0)
            yield f"into .{kind}", read(path), expected
