"""Lists of strings: data if the model takes strings, otherwise paths."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from reading import read, rows

from keras_mgpu_strategy.inputs import as_source
from keras_mgpu_strategy.types import Undeclared

TEXT = tf.TensorSpec([None], tf.string, "text")
NUMBER = tf.TensorSpec([None], tf.float32, "number")


@pytest.mark.parametrize(
    ("x", "input_spec"),
    [
        (["a", "é"], TEXT),
        (("a", "é"), TEXT),
        ([b"a", "é"], TEXT),
        ([["a"], ["é"]], tf.TensorSpec([None, 1], tf.string, "text")),
        (["a", "é"], [TEXT]),
        ({"text": ["a", "é"]}, TEXT),
        ({"text": ["a", "é"]}, {"text": TEXT}),
    ],
)
def test_a_list_for_a_model_that_takes_strings(x, input_spec):
    source = as_source(x, input_spec=input_spec)
    (batch,) = read(source, 5)
    (found,) = tf.nest.flatten(batch.inputs)
    assert found.ravel().tolist() == [b"a", "é".encode()]


@pytest.mark.parametrize("wrap", [list, tuple])
def test_one_of_several_inputs(wrap):
    inputs = [["a", "b", "c"], np.arange(3)]
    (batch,) = read(as_source(wrap(inputs), input_spec=[TEXT, NUMBER]), 5)
    assert batch.inputs[0].tolist() == [b"a", b"b", b"c"]
    named = {"text": inputs[0], "number": inputs[1], "extra": inputs[1]}
    source = as_source(named, input_spec={"text": TEXT, "number": NUMBER})
    (batch,) = read(source, 5)
    assert batch.inputs["text"].tolist() == [b"a", b"b", b"c"]


def test_names_of_tables_that_exist_are_files(tmp_path):
    path = str(tmp_path / "x.parquet")
    pd.DataFrame({"text": ["a", "b"]}).to_parquet(path)
    assert rows(as_source([path], input_spec=TEXT)).tolist() == [b"a", b"b"]
    gone = [path + ".parquet"]
    assert rows(as_source(gone, input_spec=TEXT)).tolist() == [gone[0].encode()]
    images = ["a.png", "b.png"]  # a model that takes strings takes no images
    assert rows(as_source(images, input_spec=TEXT)).tolist() == [b"a.png", b"b.png"]


@pytest.mark.parametrize("input_spec", [NUMBER, None, Undeclared(tf.float32)])
@pytest.mark.parametrize("x", [["a", "b"], {"number": ["a", "b"]}])
def test_otherwise_the_error_begins_with_what_to_do(x, input_spec):
    message = r"^Pass strings that are data as np.asarray\(list_of_strings\)\. .*a, b"
    with pytest.raises(ValueError, match=message):
        as_source(x, input_spec=input_spec)


def test_a_list_among_arrays_of_a_model_that_declares_nothing():
    message = r"^x\['a'\]\[0\] is str 'a': pass strings that are data as np.asarray"
    with pytest.raises(TypeError, match=message):
        as_source({"a": ["a", "b"], "b": np.ones(2)})
