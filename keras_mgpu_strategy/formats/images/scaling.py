"""What is done to the pixels of an image, 0 to 255, before the model.

Named scalings run in the decoding graph. A user's function is tried on a placeholder
image before anything is read; its own errors pass through unchanged.
"""

import importlib
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.formats.images.form import ImageForm
from keras_mgpu_strategy.sources.casting import Wanted, cast_for
from keras_mgpu_strategy.sources.row_errors import BadRow

BatchFn = Callable[[np.ndarray], Any]
"""Takes and returns a batch of images."""

_RESULT = "The result of the preprocess function"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _imagenet(image: tf.Tensor) -> tf.Tensor:
    """As `keras.applications.imagenet_utils.preprocess_input(mode="torch")`."""
    mean, std = tf.constant(_MEAN, image.dtype), tf.constant(_STD, image.dtype)
    return (image / 255.0 - mean) / std


SCALES: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "none": lambda image: image,
    "unit": lambda image: image / 255.0,
    "imagenet": _imagenet,
}
"""The named scalings."""


def check_preprocess(preprocess: Any) -> None:
    """Checks that it is a name of `SCALES`, "module:function" or a function."""
    is_text = isinstance(preprocess, str)
    if is_text and (preprocess in SCALES or re.fullmatch(r"[\w.]+:[\w.]+", preprocess)):
        return
    if is_text or not callable(preprocess):
        raise ValueError(
            f"Received preprocess={preprocess!r}, expected 'none', 'unit', 'imagenet', "
            "'module:function', or a function that takes and returns a batch."
        )


def batch_fn(preprocess: str | BatchFn) -> BatchFn | None:
    """Returns the user's function, imported if it is named; None for scalings."""
    if not isinstance(preprocess, str):
        return preprocess
    if preprocess in SCALES:
        return None
    received = f"Received preprocess={preprocess!r}"
    module, name = preprocess.split(":")
    try:
        found = operator.attrgetter(name)(importlib.import_module(module))
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ValueError(
            f"{received}, but Python finds no module {error.name!r}. Put the folder "
            "that holds it on PYTHONPATH."
        ) from error
    except AttributeError as error:
        raise ValueError(f"{received}, but {module} has no {name!r}.") from error
    if not callable(found):
        raise ValueError(
            f"{received}, which is a {type(found).__name__}, expected a function that "
            "takes and returns a batch."
        )
    return found


def check_form(preprocess: str | BatchFn, form: ImageForm) -> None:
    """Checks that images of such a form can be scaled this way."""
    if preprocess in ("unit", "imagenet") and form.dtype.is_integer:
        raise ValueError(
            f"Received preprocess={preprocess!r}, but the model takes integers, which "
            "cannot hold scaled pixels. Pass preprocess='none'."
        )
    if preprocess == "imagenet" and form.channels != 3:
        raise ValueError(
            f"Received preprocess='imagenet' for images of {form.channels} channels, "
            "expected 3: it has a mean and a deviation for red, green and blue."
        )


class BatchCall:
    """A user's function, checked against what it returned for one placeholder image."""

    def __init__(self, function: BatchFn, form: ImageForm, wanted: Wanted) -> None:
        self._function, self._wanted = function, wanted
        # With equal pixels, functions that divide by the deviation would warn.
        pixels = np.arange(np.prod(form.shape)) % 256
        pixels = pixels.reshape(1, *form.shape).astype(np.float32)
        example = self._call(pixels, ["of a placeholder image"])
        self._row_shape, self._dtype = example.shape[1:], example.dtype
        self.spec = tf.TensorSpec([None, *self._row_shape], self._dtype)

    def __call__(self, images: np.ndarray, rows: Sequence[Any]) -> np.ndarray:
        """Returns what the model is given, checked; errors name `rows`."""
        result = self._call(images, rows)
        if result.shape[1:] != self._row_shape or result.dtype != self._dtype:
            raise ValueError(
                f"The preprocess function returned {_kind(result)} for a batch, but "
                f"rows of shape {self._row_shape} and dtype {self._dtype} before. Let "
                "it return the same for every batch."
            )
        return result

    def zeros(self, num_rows: int) -> np.ndarray:
        """What is passed to the model in place of rows that could not be read."""
        return np.zeros((num_rows, *self._row_shape), self._dtype)

    def _call(self, images: np.ndarray, rows: Sequence[Any]) -> np.ndarray:
        num_rows = len(images)
        # Otherwise its TensorFlow ops land on the first GPU.
        with tf.device("CPU:0"):
            result = np.asarray(self._function(images))
        if result.ndim == 0 or len(result) != num_rows:
            raise ValueError(
                f"The preprocess function returned {_kind(result)} for a batch of "
                f"shape {(num_rows, *images.shape[1:])}, expected {num_rows} rows: it "
                "takes and returns a batch of images."
            )

        def fail(index: int, what: str) -> NoReturn:
            raise BadRow(f"{_RESULT}, row {rows[index]} {what}", index)

        return cast_for(result.dtype, _RESULT, self._wanted).convert(result, fail)


def _kind(result: np.ndarray) -> str:
    return f"an array of shape {result.shape} and dtype {result.dtype}"
