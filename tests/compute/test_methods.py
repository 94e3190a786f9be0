"""What each method does to the outputs, by its name."""

import pytest

from keras_mgpu_strategy.compute import heads
from keras_mgpu_strategy.compute.methods import METHODS, head_of
from keras_mgpu_strategy.predictor import Predictor


@pytest.mark.parametrize(
    ("method", "from_logits", "head"),
    [
        ("predict", False, heads.identity),
        ("predict_proba", False, heads.identity),
        ("predict_proba", True, heads.probabilities_from_logits),
        ("predict_classes", False, heads.class_ids),
        ("predict_classes", True, heads.class_ids_from_logits),
    ],
)
def test_heads(method, from_logits, head):
    assert head_of(method, from_logits=from_logits) is head


@pytest.mark.parametrize("method", ["", "fit", "Predict", "predict_iter", None])
def test_other_methods_are_refused(method):
    with pytest.raises(ValueError, match=r"method=.*Expected one of \['predict', 'pre"):
        head_of(method)


def test_predict_takes_no_logits():
    with pytest.raises(ValueError, match="from_logits=True with method='predict'"):
        head_of("predict", from_logits=True)


def test_every_name_is_a_method_of_the_predictor():
    assert all(callable(getattr(Predictor, name)) for name in METHODS)
