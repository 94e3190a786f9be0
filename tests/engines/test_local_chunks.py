"""What a call of a device's step is waited for."""

import pytest
import tensorflow as tf

from keras_mgpu_strategy.engines.local_chunks import wait_for


@pytest.mark.parametrize("shape", [(3,), (3, 4), (3, 2, 2), (3, 0), (0, 5)])
@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16, tf.int64, tf.bool])
def test_outputs_of_any_shape_and_dtype_can_be_waited_for(shape, dtype):
    wait_for({"first": tf.zeros(shape, dtype), "second": tf.zeros((3,))})


def test_strings_can_be_waited_for():
    wait_for([tf.constant(["a", "b"])])
