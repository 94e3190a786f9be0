"""Models from files that only tf_keras reads, put on every replica."""

import re
import sys

import pytest
import tensorflow as tf
import tf_keras

from keras_mgpu_strategy import models
from tests import children

pytestmark = pytest.mark.filterwarnings(
    "ignore:You are saving your model as an HDF5 file"
)


def make_tf_op_model():
    """A model that only tf_keras reads: TensorFlow functions called on its tensors."""
    inputs = tf_keras.Input((4,))
    outputs = tf_keras.layers.Dense(2)(tf.nn.softplus(inputs))
    return tf_keras.Model(inputs, outputs)


def test_reads_what_only_tf_keras_can(
    tmp_path, strategies, rows, run_replicas, assert_same
):
    model, path = make_tf_op_model(), str(tmp_path / "model.h5")
    model.save(path)
    replicated = models.read(path, strategies[2])
    assert isinstance(replicated.model, tf_keras.Model)
    assert models.strategy_of(replicated.model) is strategies[2]
    for outputs in run_replicas(replicated, rows):
        assert_same(outputs, model(rows))


def read_without_tf_keras(path):
    sys.modules["tf_keras"] = None
    message = (
        rf"(?s){re.escape(repr(path))} cannot be loaded.*"
        r"pip install 'keras_mgpu_strategy\[legacy\]'"
    )
    with pytest.raises(ValueError, match=message):
        models.read(path, tf.distribute.MirroredStrategy(["CPU:0"]))


def test_names_the_extra_where_tf_keras_is_missing(tmp_path):
    path = str(tmp_path / "model.h5")
    make_tf_op_model().save(path)
    children.run(read_without_tf_keras, path)
