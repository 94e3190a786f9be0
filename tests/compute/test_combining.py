"""The combined outputs of several runs, compared with NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from keras_mgpu_strategy.compute.combining import combined
from keras_mgpu_strategy.compute.heads import Head, head_of

NUM_RUNS = 5


def scores_of(dtype, shape=(7, 4)):
    values = np.random.default_rng(0).random((NUM_RUNS, *shape)) * 3
    return values.astype(dtype)


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def runs_of(arrays):
    return [lambda before, array=array: tf.constant(array) for array in arrays]


def numpy_of(how, arrays):
    if how == "mean":
        return arrays.mean(0)
    if how == "gmean":
        wide = np.float64 if arrays.dtype.itemsize > 2 else np.float32
        return np.exp(np.log(arrays.astype(wide)).mean(0))
    if how == "mean_std":
        return {"mean": arrays.mean(0), "std": arrays.std(0)}
    return np.stack(list(arrays), 1)


@pytest.mark.parametrize("how", ["mean", "gmean", "mean_std", "stack"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "bool"])
def test_runs_are_combined_as_by_numpy(how, dtype):
    arrays = scores_of(dtype)
    with np.errstate(divide="ignore"):
        expected = numpy_of(how, arrays)
    found = Head(combine=how)(runs_of(arrays))
    tolerance = {"float16": 1e-3, "float32": 1e-6}.get(dtype, 1e-13)

    def assert_equal(array, reference):
        is_float = arrays.dtype.kind == "f" or how == "stack"
        assert array.dtype == (dtype if is_float else "float64")
        np.testing.assert_allclose(array, reference, tolerance, tolerance)

    tf.nest.map_structure(lambda *x: assert_equal(x[0].numpy(), x[1]), found, expected)


def test_lower_precisions_are_added_in_float32_and_cast_back():
    arrays = np.full((3, 1, 1), 40000.0, np.float16)  # the sum of two is infinite
    for dtype in (tf.float16, tf.bfloat16):
        runs = [lambda _, a=a, t=dtype: tf.cast(tf.constant(a), t) for a in arrays]
        for how in ("mean", "gmean"):
            result = Head(combine=how)(runs)
            assert result.dtype == dtype
            np.testing.assert_allclose(tf.cast(result, tf.float32), 40000, 4e-3)


def test_deviations_are_stable_far_from_zero():
    arrays = (1e6 + scores_of("float64")).astype(np.float32)
    found = Head(combine="mean_std")(runs_of(arrays))
    exact = arrays.astype(np.float64).std(0)
    # E[x²] - E[x]² would be 0 or NaN in float32.
    np.testing.assert_allclose(found["std"], exact, 0, 0.07)
    np.testing.assert_array_equal(found["mean"], Head(combine="mean")(runs_of(arrays)))


@pytest.mark.parametrize("num_classes", [1, 2, 3])
def test_most_models_decide_and_the_lowest_class_of_several(num_classes):
    random = np.random.default_rng(1)
    arrays = random.random((4, 300, num_classes), np.float32)
    ids = arrays.argmax(-1)
    if num_classes == 1:
        ids = (arrays > 0.5).astype(np.int32)
    most = max(num_classes, 2)
    counts = np.stack([(ids == c).sum(0) for c in range(most)])
    for method in ("predict", "predict_classes"):
        found = Head(method, combine="vote")(runs_of(arrays)).numpy()
        np.testing.assert_array_equal(found, counts.argmax(0))
        assert found.dtype == ids.dtype


def test_logits_become_probabilities_before_they_are_combined():
    logits = scores_of("float32") * 4
    each = softmax(logits)
    mean = each.mean(0)
    proba = Head("predict_proba", True, combine="mean")(runs_of(logits))
    np.testing.assert_allclose(proba, mean, 1e-6)
    classes = Head("predict_classes", True, combine="mean")(runs_of(logits))
    np.testing.assert_array_equal(classes, mean.argmax(-1))
    best = Head("predict_top_k", True, 2, combine="mean")(runs_of(logits))
    np.testing.assert_array_equal(best["classes"], np.argsort(-mean)[:, :2])
    np.testing.assert_allclose(best["scores"], -np.sort(-mean)[:, :2], 1e-6)
    stacked = Head("predict_top_k", True, 2, combine="stack")(runs_of(logits))
    np.testing.assert_array_equal(
        stacked["classes"], np.argsort(-each).swapaxes(0, 1)[..., :2]
    )
    votes = Head("predict_classes", True, combine="vote")(runs_of(logits))
    alone = Head("predict_classes", True, combine="stack")(runs_of(logits))
    np.testing.assert_array_equal(alone, logits.argmax(-1).T)
    assert all(votes.numpy()[i] in row for i, row in enumerate(alone.numpy()))


def test_one_column_is_class_1_by_the_mean_of_probabilities():
    logits = np.array([[[9.0]], [[-0.5]], [[-0.5]]], np.float32)
    # The mean of probabilities is above 0.5; two of three models say 0.
    how = {"method": "predict_classes", "from_logits": True}
    assert Head(**how, combine="mean")(runs_of(logits)).numpy().tolist() == [[1]]
    assert Head(**how, combine="vote")(runs_of(logits)).numpy().tolist() == [[0]]


def test_small_probabilities_of_logits_do_not_round_to_zero():
    logits = np.array([[[0.0, 110.0]], [[0.0, 0.0]]], np.float32)
    found = Head("predict_proba", True, combine="gmean")(runs_of(logits))
    np.testing.assert_allclose(found, [[np.exp(-55 - np.log(2) / 2), 0.5**0.5]], 1e-5)


def test_a_run_waits_for_the_sum_of_the_earlier_ones():
    given = []

    def run(before):
        given.append([tensor.numpy().tolist() for tensor in before])
        return {"a": tf.constant([1.0]), "b": tf.constant([2.0])}

    combined("mean", [run] * 4, lambda outputs: outputs)
    assert given == [[], [[1], [2]], [[2], [4]], [[3], [6]]]


def test_results_are_cast_last_and_kept_in_structure():
    arrays = scores_of("float32")
    head = Head(dtype="float64", combine="mean_std")
    runs = [lambda _, a=a: {"x": (tf.constant(a),)} for a in arrays]
    found = head(runs)["x"][0]
    assert found["mean"].dtype == found["std"].dtype == tf.float64
    np.testing.assert_array_equal(found["mean"].numpy(), arrays.mean(0))


def test_results_have_the_structure_of_the_first_run():
    first, second = {"b": [1.0], "a": 2.0}, {"a": 4.0, "b": (3.0,)}
    runs = [
        lambda _, x=x: tf.nest.map_structure(tf.constant, x) for x in (first, second)
    ]
    found = Head(combine="mean")(runs)
    assert [*found] == ["b", "a"]
    assert found == {"b": [2.0], "a": 3.0}


@pytest.mark.parametrize(
    ("method", "how", "instead"),
    [
        ("predict_top_k", "vote", "Call predict or predict_classes"),
        ("predict_proba", "vote", "Call predict or predict_classes"),
        ("evaluate", "stack", "Call predict or predict_proba or predict_classes"),
        ("predict_top_k", "mean_std", "Call predict or predict_proba"),
        ("predict_classes", "mean_std", "Call predict or predict_proba"),
    ],
)
def test_methods_without_a_meaning_are_refused(method, how, instead):
    head = Head(method) if method == "evaluate" else head_of(method)
    head = Head(head.method, k=head.k, combine=how)
    with pytest.raises(ValueError, match=f"{method} is not defined for combine='{how}"):
        head.check(None)
    with pytest.raises(ValueError, match=f'{instead}.*, or pass combine="mean"'):
        head.check(None)


def test_what_cannot_be_combined_is_refused():
    texts = runs_of(np.full((2, 3, 1), "a"))
    assert Head(combine="stack")(texts).shape == (3, 2, 1)
    for how in ("mean", "gmean", "mean_std", "vote"):
        with pytest.raises(ValueError, match=f'{how}.*dtype string.*combine="stack"'):
            Head(combine=how)(texts)


def test_masks_are_those_of_the_models_if_they_agree():
    def masked(array, mask):
        outputs = tf.constant(array)
        if mask is not None:
            outputs._keras_mask = tf.constant(mask)
        return lambda before: outputs

    arrays, mask = scores_of("float32", (2, 1)), [True, False]
    head = Head("evaluate", combine="mean")
    outputs, masks = head([masked(array, mask) for array in arrays])
    np.testing.assert_array_equal(outputs, arrays.mean(0))
    assert masks[0].numpy().tolist() == mask
    with pytest.raises(ValueError, match="differ in which of their outputs have mask"):
        head([masked(arrays[0], mask), masked(arrays[1], None)])
