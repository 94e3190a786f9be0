"""Which error a run raises if several threads fail."""

import threading

import pytest

from keras_mgpu_strategy.engines.worker_threads import ChunkError, collect
from tests import helpers


class NoRows:
    def stop(self):
        pass


def errors_of(*failures):
    """Runs a thread for each failure, the first of which fails first."""
    failed = [threading.Event() for _ in failures]

    def work(number, put):
        if number:
            assert failed[number - 1].wait(30)
        failed[number].set()
        raise failures[number]

    with helpers.no_thread_left(), pytest.raises(Exception) as info:  # noqa: B017
        list(collect(work, len(failures), NoRows(), room=1))
    return info.value


def chunk_error(start, cause):
    error = ChunkError(start)
    error.__cause__ = cause
    return error


def test_the_error_of_the_first_row_is_raised_as_itself():
    later, earlier = ValueError("row 40"), ValueError("row 5")
    assert errors_of(chunk_error(40, later), chunk_error(5, earlier)) is earlier
    assert errors_of(chunk_error(5, earlier), chunk_error(40, later)) is earlier


def test_an_error_of_no_chunk_comes_first():
    other = OSError("no threads left")
    assert errors_of(chunk_error(0, ValueError()), other) is other
