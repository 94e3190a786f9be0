"""Warnings point at the user's line that made the call, wherever they arise."""

import ast
import concurrent.futures
import contextlib
import itertools
import linecache
import pathlib
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.system import messages
from tests import helpers

PACKAGE = pathlib.Path(messages.__file__).parents[1]
ROWS = np.full((40, 2), 3.0, np.float32)


@pytest.fixture(scope="module", params=["threads", "mirrored"])
def predictor(request, strategies):
    with strategies[2].scope():
        return mgpu.Predictor(helpers.doubling_model(), engine=request.param)


@contextlib.contextmanager
def warned(message):
    """Expects one warning, shown with a line marked "# here"."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield
    (warning,) = [one for one in seen if message in str(one.message)]
    assert warning.filename == __file__
    assert "# here" in linecache.getline(__file__, warning.lineno)


def batches(num_rows=40):
    yield from np.array_split(ROWS[:num_rows], 2)


def with_nan():
    rows = ROWS.copy()
    rows[7] = np.nan
    return rows


def test_no_module_looks_for_the_line_itself():
    """It could not: the number of frames depends on the way through the package."""
    for path in PACKAGE.rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        named = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
        found = named & {"warnings.warn", "warnings.warn_explicit"}
        assert not found or path.name == "messages.py", path


class TestValues:
    def test_in_memory(self, predictor):
        with warned("Invalid probability values"):
            predictor.predict_proba(ROWS, verbose=0)  # here

    def test_with_callbacks(self, predictor):
        callbacks = [keras.callbacks.LambdaCallback()]
        with warned("Invalid probability values"):
            predictor.predict_proba(ROWS, verbose=0, callbacks=callbacks)  # here

    def test_by_the_drop_in(self):
        with warned("Invalid probability values"):
            mgpu.predict_proba(helpers.doubling_model(), ROWS, verbose=0)  # here

    def test_into_a_file(self, predictor, tmp_path):
        with warned("Invalid probability values"):
            predictor.predict_to(tmp_path / "o.npy", ROWS, verbose=0)  # here

    def test_that_are_not_finite(self, predictor, tmp_path):
        with warned("Results are NaN or infinite in 1 rows: 7."):
            predictor.predict_to(  # here
                tmp_path / "o.csv", with_nan(), method="predict", verbose=0
            )

    def test_before_an_error(self, predictor, tmp_path):
        """The end of a `with` closes what warns."""

        def failing():
            yield with_nan()
            raise KeyError

        with warned("in 1 rows: 7."), pytest.raises(KeyError):
            predictor.predict_to(  # here
                tmp_path / "o.csv", failing(), method="predict", verbose=0
            )

    def test_in_a_thread_of_the_users(self, predictor):
        def work():
            return predictor.predict_proba(ROWS, verbose=0)  # here

        with warned("Invalid"), concurrent.futures.ThreadPoolExecutor(1) as pool:
            pool.submit(work).result()


def saved(path):
    np.save(path, ROWS)
    return path, 16


def records(path):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in ROWS:
            writer.write(row.tobytes())

    def parse(record):
        return tf.ensure_shape(tf.io.decode_raw(record, tf.float32), [2])

    return mgpu.files.TFRecords(path, parse, batch_size=16), None


KINDS = {
    "array": lambda path: (ROWS, 16),
    "dataset": lambda path: (tf.data.Dataset.from_tensor_slices(ROWS).batch(16), None),
    "npy": saved,
    "tfrecords": records,
}


class TestRowsThatAreRead:
    """In a thread of the engine, or of TensorFlow."""

    MESSAGE = "Your input ran out of data: steps=3"

    def test_into_memory(self, predictor):
        with warned(self.MESSAGE):
            predictor.predict(batches(), steps=3, verbose=0)  # here

    def test_as_they_come(self, predictor):
        with warned(self.MESSAGE):
            results = predictor.predict_iter(batches(), steps=3)  # here
            assert len(helpers.joined(results)) == 40

    def test_into_a_file(self, predictor, tmp_path):
        with warned(self.MESSAGE):
            predictor.predict_to(  # here
                tmp_path / "o.npy", batches(), steps=3, method="predict", verbose=0
            )

    @pytest.mark.parametrize("kind", ["array", "dataset", "npy", "tfrecords"])
    def test_from(self, kind, predictor, tmp_path):
        x, size = KINDS[kind](tmp_path / f"x.{kind}")
        with warned("Your input ran out of data: steps=4"):
            predictor.predict(x, size, steps=4, verbose=0)  # here

    def test_of_a_generator_that_predicts_itself(self, predictor):
        def nested():
            for rows in batches():
                yield predictor.predict_proba(rows, verbose=0) / 7  # here

        with warned("Invalid probability values: 7 in row 0"):
            results = predictor.predict_iter(itertools.islice(nested(), 1))
            helpers.joined(results)


class OwnCompile(keras.Sequential):
    def compile(self, *arguments, **settings):
        super().compile(*arguments, **settings)


def test_a_model_that_is_placed(strategies):
    model = OwnCompile([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with strategies[2].scope(), warned("OwnCompile overrides `compile` but not"):
        mgpu.Predictor(model)  # here


def own_loss(true, predicted):
    return true - predicted


def test_a_model_that_is_read(strategies, tmp_path):
    model = helpers.dense_model()
    model.compile("sgd", own_loss)
    model.save(tmp_path / "model.keras")
    with strategies[2].scope(), warned("compile settings in"):
        mgpu.load(tmp_path / "model.keras")  # here


def test_each_line_is_warned_of_once(predictor):
    """As with `warnings.warn`, so that a loop does not fill a log."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        for _ in range(3):
            predictor.predict_proba(ROWS, verbose=0)
        predictor.predict_proba(ROWS, verbose=0)
    assert len(seen) == 2


def test_it_may_be_filtered_by_the_users_module(predictor):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "Invalid", module=__name__)
        predictor.predict_proba(ROWS, verbose=0)
