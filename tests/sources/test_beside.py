"""Values next to rows: those of the requested rows, in order; no others are held."""

import gc
import threading
import weakref

import numpy as np
import pyarrow as pa
import pytest

from keras_mgpu_strategy.sources.beside import Beside
from keras_mgpu_strategy.types import RowMarks


def numbers(first, stop):
    return RowMarks(targets=(np.arange(first, stop),))


def taken(store, start, stop):
    return store.between(start, stop).targets[0].tolist()


def put_all(store, sizes, first=0):
    for size in sizes:
        store.put(first, size, numbers(first, first + size))
        first += size


@pytest.mark.parametrize("step", [1, 2, 5, 12])
def test_rows_are_those_asked_for_however_they_were_put(step):
    store = Beside()
    put_all(store, [3, 0, 1, 7, 1])
    for start in range(0, 12, step):
        stop = min(start + step, 12)
        assert taken(store, start, stop) == list(range(start, stop))
    assert store.between(12, 12) == RowMarks()


def test_columns_without_rows_have_their_types():
    schema = pa.schema([("id", pa.string())])
    store = Beside(schema)
    assert store.between(0, 0).kept.schema == schema
    store.put(0, 2, RowMarks(kept=pa.table({"id": ["a", "b"]})))
    store.put(2, 1, RowMarks(kept=pa.table({"id": ["c"]})))
    assert store.between(1, 3) == RowMarks(kept=pa.table({"id": ["b", "c"]}))
    assert store.between(3, 3).kept.schema == schema


def test_rows_before_those_asked_for_are_not_held():
    store = Beside()
    arrays = [np.arange(4), np.arange(4), np.arange(4)]
    held = [weakref.ref(array) for array in arrays]
    for index, array in enumerate(arrays):
        store.put(4 * index, 4, RowMarks(targets=(array,)))
    del arrays, array
    store.between(5, 9)
    gc.collect()
    assert [ref() is None for ref in held] == [True, False, False]
    with pytest.raises(RuntimeError, match="Rows 2 to 5 were asked for"):
        store.between(2, 5)
    with pytest.raises(RuntimeError, match="Rows 9 to 13 were asked for"):
        store.between(9, 13)


def test_a_new_pass_begins_at_its_first_row():
    store = Beside()
    put_all(store, [4, 4])
    with pytest.raises(RuntimeError, match="read twice at once"):
        store.put(4, 4, numbers(4, 8))
    store.restart(6)
    put_all(store, [4, 4, 4])
    assert taken(store, 6, 9) == [6, 7, 8]
    with pytest.raises(RuntimeError, match="asked for"):
        store.between(3, 5)


def test_another_thread_may_put():
    store, last = Beside(), 2000
    ready = threading.Semaphore(0)

    def read():
        for row in range(last):
            store.put(row, 1, numbers(row, row + 1))
            ready.release()

    thread = threading.Thread(target=read)
    thread.start()
    found = []
    for row in range(last):
        ready.acquire()
        found += taken(store, row, row + 1)
    thread.join()
    assert found == list(range(last))


def test_marks_of_some_rows_have_their_companions():
    targets = ({"a": np.arange(6), "b": np.eye(6)}, np.arange(6.0))
    marks = RowMarks(kept=pa.table({"id": list("abcdef")}), targets=targets)
    some = marks.between(2, 5)
    assert some.kept.to_pydict() == {"id": ["c", "d", "e"]}
    np.testing.assert_array_equal(some.targets[0]["a"], [2, 3, 4])
    np.testing.assert_array_equal(some.targets[0]["b"], np.eye(6)[2:5])
    np.testing.assert_array_equal(some.targets[1], [2, 3, 4])
    assert marks.between(4).kept.num_rows == 2
    assert marks.between(6, 9).kept.num_rows == 0
