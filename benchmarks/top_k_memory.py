"""Peak memory of a run from a file into Parquet, with many classes.

    python benchmarks/top_k_memory.py [--rows 1000000] [--methods predict_top_k]

The model is `Dense(4001, softmax)` on 16 features, with the default batch size. Every
number comes from a new process. It is the peak of anonymous memory (`RssAnon`) during
the run, above what was in use before it, with the model loaded and called once. The
first results are compared with NumPy's.
"""

import argparse
import json
import os
import pathlib
import tempfile
import time

import numpy as np
import result_tables

FEATURES, CLASSES, K = 16, 4001, 5
METHODS = ("predict_top_k", "predict_proba")


def measure(
    folder: pathlib.Path,
    suffix: str,
    method: str,
    engine: str,
    replicas: int,
    num_rows: int,
) -> None:
    """Runs once, in a new process, and writes what it measured into the folder."""
    import keras
    from suite.memory import PeakMemory

    import keras_mgpu_strategy as mgpu
    from keras_mgpu_strategy.benchmark import machine

    strategy = machine.make_strategy(machine.configure("cpu"), replicas)
    keras.utils.set_random_seed(0)
    softmax = keras.layers.Dense(CLASSES, "softmax")
    with strategy.scope():
        model = keras.Sequential([keras.Input((FEATURES,)), softmax])
        predictor = mgpu.Predictor(model, engine=engine)
    first = first_rows()
    getattr(predictor, method)(first[:64], verbose=0)
    memory = PeakMemory()
    memory.start()
    began = time.perf_counter()
    output, rows = folder / "out.parquet", folder / f"in{suffix}"
    report = predictor.predict_to(output, rows, verbose=0, method=method)
    seconds = time.perf_counter() - began
    memory.stop()
    check(output, np.asarray(model(first)), num_rows, method)
    found = {
        "megabytes": (memory.peak - memory.before) / 1e6,
        "rows/s": num_rows / seconds,
        "batch": report.batch_size,
    }
    (folder / "result.json").write_text(json.dumps(found))


def first_rows() -> np.ndarray:
    """The rows that all inputs repeat."""
    return np.random.default_rng(0).random((1000, FEATURES), np.float32)


def write_rows(path: pathlib.Path, num_rows: int) -> None:
    """Rows as a `.npy` file, or as one column of a Parquet file of many row groups."""
    rows = np.resize(first_rows(), (num_rows, FEATURES))
    if path.suffix == ".npy":
        np.save(path, rows)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    lists = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), FEATURES)
    pq.write_table(pa.table({"x": lists}), path, row_group_size=1 << 16)


def check(
    output: pathlib.Path, expected: np.ndarray, num_rows: int, method: str
) -> None:
    """Compares the first rows of an output, and their number."""
    import pyarrow.dataset

    data = pyarrow.dataset.dataset(output)
    first = data.scanner(filter=pyarrow.dataset.field("row") < 1000).to_table()
    wanted = {"output": expected}
    if method == "predict_top_k":
        classes = np.argsort(-expected, axis=-1, kind="stable")[:, :K]
        scores = np.take_along_axis(expected, classes, -1)
        wanted = {"classes": classes, "scores": scores}
    same = [
        np.allclose(np.stack(first[name].to_numpy()), rows, 1e-4, 1e-7)
        for name, rows in wanted.items()
    ]
    if not all(same) or data.count_rows() != num_rows:
        raise ValueError(f"{output} does not hold the results of {num_rows} rows")


def line(
    suffix: str, method: str, engine: str, replicas: int, num_rows: int
) -> list[str]:
    """One line of the table."""
    with tempfile.TemporaryDirectory(prefix="mgpu-") as name:
        folder = pathlib.Path(name)
        write_rows(folder / f"in{suffix}", num_rows)
        how = (suffix, method, engine, replicas, num_rows)
        found = result_tables.measured(measure, folder, *how)
    numbers = [f"{found[key]:,.0f}" for key in ("megabytes", "rows/s", "batch")]
    cells = [suffix, method, engine, str(replicas), f"{num_rows:,}", *numbers]
    print(*cells, flush=True)
    return cells


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--sources", nargs="+", default=(".npy", ".parquet"))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS[:1])
    parser.add_argument("--engines", nargs="+", default=("threads", "mirrored"))
    parser.add_argument("--replicas", nargs="+", type=int, default=(1, 2))
    parser.add_argument("--output", type=pathlib.Path, help="a Markdown file")
    given = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    lines = [
        line(suffix, method, engine, replicas, given.rows)
        for suffix in given.sources
        for method in given.methods
        for engine in given.engines
        for replicas in given.replicas
    ]
    header = ["source", "method", "engine", "replicas", "rows", "MB", "rows/s", "batch"]
    result_tables.save(given.output, result_tables.table(header, lines))


if __name__ == "__main__":
    main()
