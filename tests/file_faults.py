"""What child processes do in `test_predict_to_faults.py`."""

import resource
import signal
import time

import tensorflow as tf

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.compute import sizes as batch_size
from keras_mgpu_strategy.formats import registry
from keras_mgpu_strategy.formats.parquet.write import ParquetFormat
from keras_mgpu_strategy.formats.zarr.write import ZarrFormat
from keras_mgpu_strategy.runs import file_writer
from tests import file_runs

NUM_ROWS = 1000
BATCH = 16
X = file_runs.rows(NUM_ROWS)


def set_up(num_replicas, *, seconds_between_flushes):
    file_writer._SECONDS_BETWEEN_FLUSHES = seconds_between_flushes
    batch_size._MOST_MICRO_BATCHES = 1
    registry.WRITERS[".parquet"] = ParquetFormat(part_bytes=2**13)
    registry.WRITERS[".zarr"] = ZarrFormat(chunk_bytes=2**13)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    with mgpu.scope("cpu", replicas_per_device=num_replicas):
        return mgpu.Predictor(file_runs.classifier())


def write(predictor, path, x, **options):
    return predictor.predict_to(path, x, BATCH, verbose=0, **options)


def on_a_full_disk(path, kind, seconds_between_flushes, num_bytes):
    """Runs with a limit on the size of files, twice, and then without it."""
    predictor = set_up(2, seconds_between_flushes=seconds_between_flushes)
    make = file_runs.INPUTS[kind]
    whole = path.with_name(f"whole{path.suffix}")
    write(predictor, whole, make(X))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for _ in range(2):  # resuming while the disk is still full changes nothing
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
        try:
            write(predictor, path, make(X), resume=True)
        except OSError as error:
            assert f"'{path}" in str(error)
            notes = "\n".join(getattr(error, "__notes__", []))
        else:
            raise AssertionError("no OSError")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        safe = file_runs.safe_rows(path) if file_runs.journal_of(path).exists() else 0
        assert not safe or f"Rows 0 to {safe} are safe in" in notes
    path.with_suffix(".safe").write_text(f"{safe}")
    assert not path.exists()
    report = write(predictor, path, make(X), resume=True)
    assert report.rows <= NUM_ROWS - safe + BATCH


def slowly(x):
    for batch in file_runs.generator(x):
        time.sleep(0.03)
        yield batch


def until_a_signal(path, num_replicas, **options):
    """Runs until a signal arrives, and writes down what it raised."""
    predictor = set_up(num_replicas, seconds_between_flushes=0.0)
    try:
        write(predictor, path, slowly(X), **options)
    except BaseException as error:
        lines = [type(error).__name__, str(error), *getattr(error, "__notes__", [])]
        path.with_suffix(".error").write_text("\n".join(lines))
        raise


def until_a_signal_that_is_noted(path, num_replicas):
    """The same if the user's own handler only makes a note."""
    noted = path.with_suffix(".noted")
    signal.signal(signal.SIGTERM, lambda number, _: noted.write_text(f"{number}"))
    until_a_signal(path, num_replicas)


def until_a_signal_of_the_scheduler(path, num_replicas):
    """The same if a signal named in `stop_on` ends the run."""
    until_a_signal(path, num_replicas, stop_on="USR1")


def go_on(path, num_replicas):
    """Resumes, and writes the same without a stop, for comparison."""
    predictor = set_up(num_replicas, seconds_between_flushes=2.0)
    report = write(predictor, path, file_runs.generator(X), resume=True)
    assert report.rows < NUM_ROWS
    write(predictor, path.with_name(f"whole{path.suffix}"), X)
