"""Layers are given sparse rows as Keras gives them: sparse or dense."""

import functools

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

import keras_mgpu_strategy as mgpu

DENSE = np.zeros((13, 4), np.float32)
DENSE[np.arange(13), np.arange(13) % 4] = np.arange(13)  # a zero is in row 0
DENSE[5], DENSE[7, 1:3] = 0, 2
SPARSE = scipy.sparse.csr_array(DENSE)
EXPLICIT = scipy.sparse.csr_array(
    (SPARSE.data * 0, SPARSE.indices, SPARSE.indptr), SPARSE.shape
)
TENSOR = tf.SparseTensor(np.argwhere(DENSE), DENSE[DENSE != 0], DENSE.shape)
TWICE = scipy.sparse.coo_array(([1.0, 2.0], ([0, 0], [1, 1])), (13, 4), np.float32)

KINDS = {
    "dense": lambda: DENSE,
    "csr": lambda: SPARSE,
    "csc": lambda: SPARSE.tocsc(),
    "coo": lambda: SPARSE.tocoo(),
    "zeros": lambda: EXPLICIT,
    "zeros in csc": lambda: EXPLICIT.tocsc(),
    "integers": lambda: SPARSE.astype(np.int32),
    "float64": lambda: SPARSE.astype(np.float64),
    "tensor": lambda: TENSOR,
    "data set": lambda: tf.data.Dataset.from_tensor_slices(TENSOR).batch(3),
    "generator": lambda: ((SPARSE[i : i + 5],) for i in range(0, 13, 5)),
}


def probe(lib):
    """Returns a layer: a dense row's sum, or 100 + a sparse row's number of values."""

    class Probe(lib.layers.Layer):
        def call(self, x):
            if not isinstance(x, tf.SparseTensor):
                return tf.reduce_sum(tf.cast(x, tf.float32), 1, keepdims=True)
            assert x.shape[1] in (4, None)
            ones = tf.SparseTensor(
                x.indices, tf.ones_like(x.values, tf.float32), x.dense_shape
            )
            stored = tf.sparse.reduce_sum(ones, 1, keepdims=True)
            return 100.0 + tf.reshape(stored, [-1, 1])

        def compute_output_shape(self, shape):
            return (shape[0], 1)

        def compute_output_spec(self, x):
            return keras.KerasTensor((x.shape[0], 1), "float32")

    return Probe()


def functional(lib, sparse):
    inputs = lib.Input((4,), sparse=sparse)
    return lib.Model(inputs, probe(lib)(inputs))


def sequential(lib, sparse):
    return lib.Sequential([lib.layers.InputLayer((4,), sparse=sparse), probe(lib)])


def open_ended(lib, sparse):
    return lib.Sequential([probe(lib)])


def subclassed(lib, sparse):
    class Model(lib.Model):
        def __init__(self):
            super().__init__()
            self.probe = probe(lib)

        def call(self, x):
            return self.probe(x)

    return Model()


MODELS = [functional, sequential, open_ended, subclassed]
DECLARED = [(make, sparse) for make in MODELS[:2] for sparse in (False, True)]
DECLARED += [(make, None) for make in MODELS[2:]]


@pytest.mark.parametrize(("make", "sparse"), DECLARED)
@pytest.mark.parametrize("library", ["keras", "tf_keras"])
def test_layers_are_given_what_keras_gives(library, make, sparse, strategies):
    lib = pytest.importorskip(library)
    plain = make(lib, sparse)
    with strategies[2].scope():
        predictor = mgpu.Predictor(make(lib, sparse))
        in_step = mgpu.Predictor(make(lib, sparse), engine="mirrored")
    for kind, rows in KINDS.items():
        steps = {"steps": 3} if kind == "generator" else {}
        given = rows()
        if hasattr(given, "tocsr"):
            given = given.tocsr()  # Keras cuts other matrices wrongly, or fails
        try:
            expected = plain.predict(given, verbose=0, **steps)
        except tf.errors.InvalidArgumentError:  # tf_keras cannot read matrices there
            assert (library, kind) == ("tf_keras", "generator")
            continue
        result = predictor.predict(rows(), batch_size=6, verbose=0)
        np.testing.assert_array_equal(result, expected, kind)
        if kind in ("dense", "csr", "data set"):
            result = in_step.predict(rows(), batch_size=6, verbose=0)
            np.testing.assert_array_equal(result, expected, kind)


def test_sparse_beside_dense(strategies):
    def make():
        words, more = keras.Input((4,), sparse=True), keras.Input((4,), name="more")
        joined = keras.layers.Concatenate()([probe(keras)(words), more])
        return keras.Model([words, more], joined)

    with strategies[2].scope():
        predictor = mgpu.Predictor(make())
    for x in ([SPARSE, DENSE], [DENSE, SPARSE], [SPARSE, SPARSE]):
        expected = make().predict(x, verbose=0)
        np.testing.assert_array_equal(predictor.predict(x, 6, verbose=0), expected)


def test_outside_of_a_scope(strategies):
    plain = functional(keras, True)
    with strategies[2].scope():
        predictor = mgpu.Predictor(plain)
    expected = plain.predict(SPARSE, verbose=0)
    np.testing.assert_array_equal(predictor.predict(SPARSE, 6, verbose=0), expected)


def test_layers_that_take_only_sparse_tensors(strategies):
    class Weighted(keras.layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(4, 2))

        def call(self, x):
            return tf.sparse.sparse_dense_matmul(x, self.kernel)

        def compute_output_spec(self, x):
            return keras.KerasTensor((x.shape[0], 2), "float32")

    def make():
        keras.utils.set_random_seed(1)
        inputs = keras.Input((4,), sparse=True)
        model = keras.Model(inputs, Weighted()(inputs))
        model.compile(run_eagerly=True)
        return model

    with strategies[2].scope():
        predictor = mgpu.Predictor(make())
    result = predictor.predict(SPARSE, 6, verbose=0)
    np.testing.assert_allclose(result, make().predict(SPARSE, verbose=0), 1e-5, 1e-6)


def test_strings(strategies):
    words = tf.SparseTensor([[0, 1], [2, 0]], ["a", ""], (3, 2))

    class Count(keras.Model):
        def call(self, x):
            return tf.sparse.reduce_sum(
                tf.SparseTensor(
                    x.indices, tf.strings.length(x.values) + 1, x.dense_shape
                ),
                1,
                keepdims=True,
            )

    with strategies[2].scope():
        predictor = mgpu.Predictor(Count())
    assert predictor.predict(words, verbose=0).tolist() == [[2], [0], [1]]


def test_sparse_layers_within_a_model(strategies):
    def make():
        keras.utils.set_random_seed(1)
        inputs = keras.Input((1,), dtype="string")
        words = keras.layers.StringLookup(
            vocabulary=["a", "b"], output_mode="multi_hot", sparse=True
        )(inputs)
        return keras.Model(inputs, keras.layers.Dense(2)(words))

    rows = np.array([["a"], ["b"], ["c"], ["a"]], object)
    plain = make()
    with strategies[2].scope():
        predictors = [mgpu.Predictor(make()), mgpu.Predictor(plain)]
    expected = plain.predict(tf.constant(rows.tolist()), verbose=0)
    for predictor in predictors:
        result = predictor.predict(rows, 2, verbose=0)
        np.testing.assert_allclose(result, expected, 1e-5, 1e-6)


def test_a_custom_predict_step(strategies):
    class Model(keras.Model):
        def call(self, x):
            return probe(keras)(x)

        def predict_step(self, data):
            x, ids = data if isinstance(data, tuple) else (data, None)
            rows = self(x)
            return rows if ids is None else (rows, tf.sparse.to_dense(ids))

    data = tf.data.Dataset.from_tensor_slices((TENSOR, TENSOR)).batch(3)
    expected = Model().predict(data, verbose=0)
    with strategies[2].scope():
        predictor = mgpu.Predictor(Model())
    result = predictor.predict(data, 6, verbose=0)
    for mine, theirs in zip(result, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    expected = Model().predict(SPARSE, verbose=0)
    np.testing.assert_array_equal(predictor.predict(SPARSE, 6, verbose=0), expected)


def test_values_in_several_parts(strategies):
    with strategies[2].scope():
        sparse = mgpu.Predictor(functional(keras, True))
        dense = mgpu.Predictor(functional(keras, False))
    with pytest.raises(ValueError, match=r"^x is a coo_array .*sum_duplicates"):
        sparse.predict(TWICE, verbose=0)
    assert dense.predict(TWICE, verbose=0)[0] == 3
    joined = TWICE.copy()
    joined.sum_duplicates()
    assert sparse.predict(joined, verbose=0)[0] == 101


def test_a_stream_that_changes(strategies):
    with strategies[2].scope():
        predictor = mgpu.Predictor(subclassed(keras, None))
    with pytest.raises(ValueError, match="^Batch 1 .*sparse or dense rows"):
        predictor.predict(iter([SPARSE, DENSE]), verbose=0)


def test_resuming_dense_rows_as_sparse_ones(strategies, tmp_path):
    with strategies[2].scope():
        predictor = mgpu.Predictor(subclassed(keras, None))
    out = tmp_path / "out.npy"
    run = functools.partial(predictor.predict_to, out, method="predict", verbose=0)
    run(SPARSE)
    run(SPARSE, resume=True)
    with pytest.raises(ValueError, match="another run wrote it .*input: .*bool"):
        run(DENSE, resume=True)


def test_xla(strategies):
    with strategies[2].scope():
        forced = mgpu.Predictor(functional(keras, True), jit_compile=True)
    with pytest.raises(ValueError, match="XLA cannot compile the model: .*Sparse"):
        forced.predict(SPARSE, verbose=0)
    expected = functional(keras, True).predict(DENSE, verbose=0)
    np.testing.assert_array_equal(forced.predict(DENSE, verbose=0), expected)
