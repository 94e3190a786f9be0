import threading

import numpy as np
import pytest
import tensorflow as tf

from keras_mgpu_strategy.compute.signatures import SpecMemory, example_inputs, row_bytes


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    "make",
    [
        zeros,
        lambda *shape: tf.zeros(shape),
        lambda *shape: tf.TensorSpec(shape, tf.float32),
    ],
    ids=["numpy", "tensor", "spec"],
)
def test_the_batch_axis_is_free_and_the_others_are_kept(make):
    assert SpecMemory().cover(make(7, 5, 2)) == tf.TensorSpec([None, 5, 2], tf.float32)


def test_an_axis_seen_with_two_lengths_is_free_from_then_on():
    memory = SpecMemory()
    assert memory.cover(zeros(1, 5, 2)).shape.as_list() == [None, 5, 2]
    assert memory.cover(zeros(1, 6, 2)).shape.as_list() == [None, None, 2]
    assert memory.cover(zeros(1, 5, 2)).shape.as_list() == [None, None, 2]
    assert memory.cover(zeros(1, 5, 3)).shape.as_list() == [None, None, None]


def test_many_lengths_give_at_most_one_spec_more_per_axis():
    memory = SpecMemory()
    specs = {
        tuple(memory.cover(zeros(1, length, width)).shape)
        for length in range(1, 9)
        for width in range(1, 9)
    }
    assert len(specs) == 3


def test_a_spec_with_a_free_axis_frees_it():
    memory = SpecMemory()
    memory.cover(tf.TensorSpec([None, None, 2], tf.float32))
    assert memory.cover(zeros(3, 4, 2)).shape.as_list() == [None, None, 2]


def test_another_dtype_rank_or_structure_is_remembered_apart():
    memory = SpecMemory()
    memory.cover(zeros(1, 5))
    memory.cover(zeros(1, 6))
    assert memory.cover(zeros(1, 7, dtype=np.int32)).shape.as_list() == [None, 7]
    assert memory.cover(zeros(1, 7, 7)).shape.as_list() == [None, 7, 7]
    assert memory.cover([zeros(1, 7)])[0].shape.as_list() == [None, 7]
    assert memory.cover({"a": zeros(1, 7)})["a"].shape.as_list() == [None, 7]
    assert memory.cover({"b": zeros(1, 8)})["b"].shape.as_list() == [None, 8]
    assert memory.cover(zeros(1, 7)).shape.as_list() == [None, None]


def test_leaves_of_a_nest_vary_on_their_own():
    memory = SpecMemory()
    memory.cover({"text": zeros(2, 5), "image": zeros(2, 8, 8)})
    spec = memory.cover({"text": zeros(2, 6), "image": zeros(2, 8, 8)})
    assert spec["text"].shape.as_list() == [None, None]
    assert spec["image"].shape.as_list() == [None, 8, 8]


@pytest.mark.parametrize("dtype", ["S3", "U3"])
def test_text_is_a_string_tensor(dtype):
    spec = SpecMemory().cover(np.zeros((2, 1), dtype))
    assert spec == tf.TensorSpec([None, 1], tf.string)


def test_threads_agree_in_the_end():
    memory = SpecMemory()

    def cover(length):
        for _ in range(50):
            memory.cover(zeros(1, length))

    threads = [threading.Thread(target=cover, args=(size,)) for size in (3, 4, 5, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert memory.cover(zeros(1, 3)).shape.as_list() == [None, None]


SPEC = {
    "text": tf.TensorSpec([None, 3], tf.string),
    "image": tf.TensorSpec([None, None, 4], tf.float16),
    "id": tf.TensorSpec([None], tf.int64),
}


def test_example_inputs():
    example = example_inputs(SPEC, 2)
    assert example["text"].shape == (2, 3)
    assert tf.convert_to_tensor(example["text"]).dtype == tf.string
    assert example["image"].shape == (2, 1, 4)
    assert example["image"].dtype == np.float16
    assert example["id"].shape == (2,)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("text", 3 * 16),  # strings count as 16 bytes
        ("image", 1 * 4 * 2),  # an unknown axis counts as 1
        ("id", 8),  # no axis after the batch
    ],
)
def test_row_bytes(name, expected):
    assert row_bytes(SPEC[name]) == expected


def test_row_bytes_of_a_nest_is_the_sum():
    assert row_bytes(SPEC) == 48 + 8 + 8
