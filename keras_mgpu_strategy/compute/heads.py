"""What each predict method does to a model's outputs, before they leave the device.

A head is compiled with the model. Ties and NaN give the same classes on every device,
with XLA or without.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.compute.combining import Runs, combined, is_dense
from keras_mgpu_strategy.models import masks_of
from keras_mgpu_strategy.system.integers import count
from keras_mgpu_strategy.types import Nest

_DEFAULT_K = 5
_OF_LOGITS = ("predict_proba", "predict_classes", "predict_top_k")
_OF_EACH = ("stack", "vote")
# combine -> the methods that mean something for it.
_FITTING = {
    "vote": ("predict", "predict_classes"),
    "stack": ("predict", *_OF_LOGITS),
    "mean_std": ("predict", "predict_proba"),
}


@dataclasses.dataclass(frozen=True)
class Head:
    """What is done to all outputs of a model; a value, by which steps are kept.

    Floats of the results are cast to `dtype` last; None leaves them. "evaluate" gives
    the outputs as they are, and their masks. With `combine`, the model gives `Runs`:
    logits become probabilities in each, and classes are those of what is combined,
    except for "stack" and "vote", where each run has its own.
    """

    method: str = "predict"
    from_logits: bool = False
    k: int | None = None
    dtype: str | None = None
    combine: str | None = None

    def __call__(self, outputs: Nest | Runs) -> Nest:
        """The results, in place of each output; what is not dense stays as it is."""
        if self.method == "evaluate":
            return self._evaluated(outputs)
        results = self._of_runs(outputs) if self.combine else self._of_all(outputs)
        return _each(self._cast, results)

    @property
    def plain(self) -> "Head":
        """What gives outputs as they are; of several models, along a new axis 1."""
        return Head(combine=self.combine and "stack")

    @property
    def along_last_axis(self) -> str | None:
        """The method, if it mixes the values along the last axis of an output."""
        ranks = self.method in ("predict_classes", "predict_top_k")
        mixes = ranks or self.from_logits or self.combine == "vote"
        return self.method if mixes else None

    def check(self, shapes: Nest | None) -> None:
        """Raises ValueError if outputs of these shapes, if known, have too few classes.

        Raises it for a dtype when a step is traced.
        """
        _check_combination(self.method, self.combine)
        if self.k is not None and shapes is not None:
            for shape in tf.nest.flatten(shapes):
                _check_classes(shape, self.k)

    def _of_runs(self, runs: Runs) -> Nest:
        how = str(self.combine)
        if how in _OF_EACH:
            method = "predict_classes" if how == "vote" else self.method
            each = dataclasses.replace(self, method=method)
            return combined(how, runs, each._of_all)
        # Small probabilities would be 0, but not their logarithms.
        if how == "gmean" and self.from_logits:
            how, before = "gmean of logs", functools.partial(_each, log_probabilities)
        else:
            before = Head("predict_proba", self.from_logits)._of_all
        then = dataclasses.replace(self, from_logits=False)
        return then._of_all(combined(how, runs, before))

    def _evaluated(self, outputs: Nest | Runs) -> Nest:
        if self.combine is None:
            return outputs, masks_of(outputs)
        masks: list[list[Any]] = []

        def noted(each: Nest) -> Nest:
            masks.append(masks_of(each))
            return each

        results = combined(self.combine, outputs, noted)
        if len({tuple(isinstance(mask, tuple) for mask in each) for each in masks}) > 1:
            raise ValueError(
                "The models differ in which of their outputs have masks, with which "
                "losses and metrics leave values out. Combine models whose outputs all "
                "have them, or none, or compute metrics from what `predict` returns."
            )
        return results, masks[0]

    def _of_all(self, outputs: Nest) -> Nest:
        return _each(self._of_one, outputs)

    def _of_one(self, output: tf.Tensor) -> Nest:
        if self.method == "predict":
            return output
        if self.method == "predict_classes":
            if self.combine == "vote":
                _check_ranked("vote", output.dtype)
            return class_ids(output, 0 if self.from_logits else 0.5)
        if self.k is not None:
            _check_classes(output.shape, self.k, output.dtype)
        scores = probabilities(output) if self.from_logits else output
        return scores if self.k is None else top_k(scores, self.k)

    def _cast(self, output: tf.Tensor) -> tf.Tensor:
        if self.dtype is None or not output.dtype.is_floating:
            return output
        return tf.cast(output, self.dtype)


identity = Head()
evaluation = Head("evaluate")
METHODS = ("predict", *_OF_LOGITS)


def head_of(method: str, *, from_logits: bool = False, k: int | None = None) -> Head:
    """Returns what a method does to the outputs; None for `k` is 5."""
    if method not in METHODS:
        raise ValueError(f"method={method!r}. Expected one of {list(METHODS)}.")
    if from_logits and method not in _OF_LOGITS:
        raise ValueError(
            f"Received from_logits=True with method={method!r}, which returns what the "
            f"model returns. Use {', '.join(_OF_LOGITS[:-1])} or {_OF_LOGITS[-1]}."
        )
    if method == "predict_top_k":
        k = count("k", _DEFAULT_K if k is None else k)
    elif k is not None:
        raise ValueError(
            f"Received k={k!r} with method={method!r}, which does not rank classes. "
            'Expected method="predict_top_k" with it.'
        )
    return Head(method, bool(from_logits), k)


def probabilities(logits: tf.Tensor) -> tf.Tensor:
    """Softmax over the last axis; sigmoid if it has one column."""
    return tf.nn.sigmoid(logits) if _is_one_column(logits) else tf.nn.softmax(logits)


def log_probabilities(logits: tf.Tensor) -> tf.Tensor:
    """The logarithms of `probabilities`, also of those that round to 0."""
    log = tf.math.log_sigmoid if _is_one_column(logits) else tf.nn.log_softmax
    return log(logits)


def class_ids(outputs: tf.Tensor, threshold: float) -> tf.Tensor:
    """Argmax (int64), or 1 above a threshold for one column (int32), as in Keras 2.

    As for `np.argmax`, NaN is best.
    """
    if _is_one_column(outputs):
        return tf.cast(outputs > threshold, tf.int32)
    return tf.argmax(_ranked(outputs), axis=-1)


def top_k(scores: tf.Tensor, k: int) -> dict[str, tf.Tensor]:
    """The k best of the last axis, in descending order, ties by class; NaN is best."""
    if not scores.dtype.is_floating:
        values, classes = tf.math.top_k(scores, k)
        return {"classes": classes, "scores": values}
    ranked = _ranked(scores)
    # For many classes, XLA sorts bits on GPUs, where -0 comes after 0.
    ranked = tf.where(ranked == 0, tf.zeros_like(ranked), ranked)
    classes = tf.math.top_k(ranked, k).indices
    values = tf.gather(scores, classes, axis=-1, batch_dims=scores.shape.rank - 1)
    return {"classes": classes, "scores": values}


def _ranked(scores: tf.Tensor) -> tf.Tensor:
    """Scores to rank by: where TensorFlow puts NaN depends on the kernel."""
    if not scores.dtype.is_floating:
        return scores
    infinity = tf.constant(float("inf"), scores.dtype)
    return tf.where(tf.math.is_nan(scores), infinity, scores)


def _is_one_column(outputs: tf.Tensor) -> bool:
    return outputs.shape.rank == 1 or outputs.shape[-1] == 1


def _check_ranked(what: str, dtype: Any) -> None:
    if not (dtype.is_floating or dtype.is_integer):
        remedy = 'pass combine="stack"' if what == "vote" else "call predict()"
        raise ValueError(
            f"{what} got outputs of dtype {dtype.name}, expected numbers that can be "
            f"ranked. {remedy.capitalize()} for what the model returns."
        )


def _check_combination(method: str, combine: str | None) -> None:
    fitting = _FITTING.get(str(combine), (method,))
    if method not in fitting:
        raise ValueError(
            f"{method} is not defined for combine={combine!r}. Call "
            f'{" or ".join(fitting)}, or pass combine="mean" to load or Predictor.'
        )


def _check_classes(shape: tf.TensorShape, k: int, dtype: Any = tf.float32) -> None:
    _check_ranked("predict_top_k", dtype)
    if shape.rank is None:
        return
    num_classes = shape[-1] if shape.rank > 1 else 1
    if num_classes == 1:
        raise ValueError(
            f"predict_top_k got an output of shape {tuple(shape)}, with one number for "
            "each row. Expected one for each of several classes. Call predict_classes "
            "(1 above 0.5) or predict_proba, or leave this output out."
        )
    if num_classes is not None and k > num_classes:
        raise ValueError(
            f"k={k} is more than the {num_classes} classes of the model's output of "
            f"shape {tuple(shape)}. Expected k of at most {num_classes}."
        )


def _each(function: Callable[[tf.Tensor], Nest], outputs: Nest) -> Nest:
    """Applies a function to the dense leaves."""
    return tf.nest.map_structure(
        lambda leaf: function(leaf) if is_dense(leaf) else leaf, outputs
    )
