"""Graphs that only read, and those that do more."""

import pytest
import tensorflow as tf

from keras_mgpu_strategy.models import only_reads


def checked(weight):
    with tf.control_dependencies([tf.debugging.Assert(weight[0, 0] > 0, [0])]):
        return tf.identity(weight[0])


CALLS = {
    "reads": (True, lambda x, weight: tf.tanh(x @ weight)),
    "loops": (True, lambda x, weight: tf.map_fn(lambda row: row + weight[0], x)),
    "writes": (False, lambda x, weight: x + weight.assign_add(weight)[0]),
    "draws": (False, lambda x, weight: x + tf.random.normal([2]) + weight[0]),
    "checks": (False, lambda x, weight: x + checked(weight)),
    "Python": (False, lambda x, weight: tf.numpy_function(abs, [x], tf.float32)),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("is_within", [False, True])
def test_what_a_graph_does(name, is_within):
    expected, call = CALLS[name]
    weight = tf.Variable(tf.ones([2, 2]))
    inner = tf.function(lambda x: call(x, weight), autograph=False)
    outer = tf.function(lambda x: inner(x), autograph=False) if is_within else inner
    concrete = outer.get_concrete_function(tf.TensorSpec([None, 2]))
    assert only_reads(concrete.graph.as_graph_def()) is expected
