"""Generators, iterators, PyDatasets: elements, reading again, closing, errors."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from reading import Tracked, read, rows, sizes

from keras_mgpu_strategy.inputs import as_source

X = np.arange(20, dtype=np.float32).reshape(10, 2)
PARTS = [X[:3], X[3:3], X[3:8], X[8:]]


class Batches(keras.utils.PyDataset):
    def __init__(self, parts=PARTS):
        super().__init__()
        self.parts = parts
        self.asked = []

    def __len__(self):
        return len(self.parts)

    def __getitem__(self, index):
        self.asked.append(index)
        return self.parts[index], np.zeros(len(self.parts[index]))


class Endless(keras.utils.PyDataset):
    num_batches = None

    def __getitem__(self, index):
        return X[:2] + index


class Legacy(tf_keras.utils.Sequence):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return X[5 * index : 5 * index + 5]


@pytest.mark.parametrize(
    "element",
    [
        lambda x: x,
        lambda x: (x,),
        lambda x: (x, np.zeros(len(x))),
        lambda x: [x, None],
        lambda x: (x, object(), "weights"),
        lambda x: tf.constant(x),
    ],
)
def test_elements(element):
    source = as_source(element(part) for part in PARTS)
    assert source.num_rows is None
    assert source.spec == tf.TensorSpec([None, 2], tf.float32)
    np.testing.assert_array_equal(rows(source), X)


def test_several_inputs():
    elements = [(({"a": p}, (p + 1, p + 2)), None) for p in PARTS]
    source = as_source(iter(elements))
    tf.nest.assert_same_structure(source.spec, elements[0][0])
    batch = read(source, 7)[0]
    np.testing.assert_array_equal(batch.inputs[0]["a"], X[:7])
    np.testing.assert_array_equal(batch.inputs[1][1], X[:7] + 2)


def test_pandas_batches():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=["a", "b"])
    source = as_source(frame.iloc[at : at + 4] for at in range(0, 10, 4))
    np.testing.assert_array_equal(rows(source, 3), X)


def test_the_spec_reads_one_batch_ahead_and_loses_nothing():
    tracked = Tracked(PARTS)
    source = as_source(tracked.generator)
    assert tracked.num_given == 0
    assert source.spec is source.spec
    assert tracked.num_given == 1
    np.testing.assert_array_equal(rows(source), X)


def test_no_more_is_read_than_asked_for():
    tracked = Tracked([X[:4], X[4:8], X[8:]])
    batches = as_source(tracked.generator).batches(4)
    next(batches)
    assert tracked.num_given == 1


@pytest.mark.parametrize("make", [lambda: iter([]), lambda: Batches([])])
def test_without_a_batch_there_is_no_spec(make):
    source = as_source(make())
    assert source.spec is None
    assert read(source, 4) == []


def test_batches_without_rows_have_a_spec():
    source = as_source(iter([X[:0], X[:0]]))
    assert source.spec == tf.TensorSpec([None, 2], tf.float32)
    assert read(source, 4) == []


@pytest.mark.parametrize("make", [lambda: iter(PARTS), Batches])
def test_rows_before_the_start_are_dropped(make):
    np.testing.assert_array_equal(rows(as_source(make()), 4, start=5), X[5:])
    assert read(as_source(make()), 4, start=10) == []


@pytest.mark.parametrize("make", [lambda: iter(PARTS), Batches])
def test_a_start_past_the_end(make):
    batches = as_source(make()).batches(4, 11)
    with pytest.raises(ValueError, match="start=11, but the input has only 10 rows"):
        next(batches)
    with pytest.raises(ValueError, match="Received start=-1, expected 0 or more"):
        as_source(make()).batches(4, -1)


def test_a_py_dataset_can_be_read_again():
    dataset = Batches()
    source = as_source(dataset)
    assert source.spec == tf.TensorSpec([None, 2], tf.float32)
    np.testing.assert_array_equal(rows(source), X)
    assert dataset.asked == [0, 1, 2, 3]
    np.testing.assert_array_equal(rows(source, 3, start=4), X[4:])
    source.batches(3).close()
    np.testing.assert_array_equal(rows(source), X)


def test_a_legacy_sequence():
    np.testing.assert_array_equal(rows(as_source(Legacy()), 3), X)


def test_a_generator_cannot_be_read_again():
    source = as_source(iter(PARTS))
    assert len(read(source, 4)) == 3
    message = (
        "Received start=0, but this input can be read only once and rows up to 10 were "
        "read. Pass a fresh generator, or a tf.data.Dataset"
    )
    with pytest.raises(ValueError, match=message):
        source.batches(4)


def test_a_generator_resumes_where_reading_stopped():
    source = as_source(iter(PARTS))
    paused = source.batches(4)
    assert next(paused).num_rows == 4
    with pytest.raises(ValueError, match="start=3, .* rows up to 4 were read"):
        source.batches(4, 3)
    np.testing.assert_array_equal(rows(source, 2, start=4), X[4:])


def test_closing_early_closes_the_generator():
    tracked = Tracked(PARTS)
    source = as_source(tracked.generator)
    batches = source.batches(2)
    next(batches)
    assert not tracked.is_closed
    batches.close()
    assert tracked.is_closed
    with pytest.raises(ValueError, match="this input can be read only once"):
        source.batches(2, 2)


def test_closing_what_was_not_started_leaves_the_generator():
    tracked = Tracked(PARTS)
    source = as_source(tracked.generator)
    source.batches(2).close()
    np.testing.assert_array_equal(rows(source), X)


def test_steps_draw_that_many_batches_and_leave_the_rest():
    tracked = Tracked(itertools.repeat(X[:3]))
    source = as_source(tracked.generator, steps=2)
    assert sizes(source, 4) == [4, 2]
    assert tracked.num_given == 2 and not tracked.is_closed
    assert sizes(as_source(tracked.generator, steps=1), 4) == [3]


def test_running_out_of_data_warns():
    message = r"input ran out of data: steps=9 batches were asked for, but it has 4"
    for make in (lambda: iter(PARTS), Batches):
        with pytest.warns(UserWarning, match=message):
            assert sum(sizes(as_source(make(), steps=9), 4)) == 10


def test_an_endless_py_dataset():
    message = "Endless with num_batches=None, which never ends, expected steps= with it"
    with pytest.raises(ValueError, match=message):
        as_source(Endless())
    assert sizes(as_source(Endless(), steps=3), 4) == [4, 2]
