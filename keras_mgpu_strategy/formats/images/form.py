"""The size, channels and dtype of images, from what a model declares.

That is never overruled, unless a user's function sits between images and model. All is
checked before a file is opened.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.sources.casting import Wanted, cast_for
from keras_mgpu_strategy.types import Nest, Undeclared

COLOR_MODES = {"grayscale": 1, "rgb": 3, "rgba": 4}
"""Names, as in Keras, of the numbers of channels that files are decoded to."""

_NAMES = {channels: name for name, channels in COLOR_MODES.items()}


@dataclasses.dataclass(frozen=True, slots=True)
class ImageForm:
    """What every image is converted to; `(height, width)` without `has_channels`."""

    height: int
    width: int
    channels: int  # 1, 3 or 4
    has_channels: bool = True
    dtype: tf.DType = tf.float32  # uint8 for integers, float64 for float64

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an image as passed to the model."""
        size = (self.height, self.width)
        return (*size, self.channels) if self.has_channels else size


def form_for(
    input_spec: Nest,
    image_size: tuple[int, int] | None,
    color_mode: str | None,
    *,
    is_free: bool = False,
) -> ImageForm:
    """Returns what a model accepts; the user's wishes must agree unless `is_free`."""
    declared, asked = _declared(input_spec), COLOR_MODES.get(color_mode or "")
    if declared is None or (is_free and image_size is not None):
        if image_size is None:
            raise ValueError(
                "The model does not declare the shape of its input, so the size of the "
                "images is not known. Pass image_size=(height, width)."
            )
        dtype = tf.float32 if is_free else _floats(wanted_dtype(input_spec))
        return ImageForm(*image_size, asked or _channels(declared) or 3, dtype=dtype)
    _check_axes(declared)
    size, has_channels = _size(declared, image_size), declared.shape.rank == 4
    channels = _channels(declared) if has_channels else 1
    if is_free:
        return ImageForm(*size, asked or channels or 3)
    if channels is not None and asked not in (None, channels):
        raise ValueError(
            f"Received color_mode={color_mode!r}. {_input(declared)}: leave color_mode "
            f"out, or pass color_mode={_NAMES[channels]!r}."
        )
    return ImageForm(*size, channels or asked or 3, has_channels, _dtype(declared))


def wanted_dtype(input_spec: Nest) -> Wanted:
    """What `casting` is to convert rows to, from what a model declares."""
    if input_spec is None or isinstance(input_spec, Undeclared):
        return input_spec
    return tf.nest.flatten(input_spec)[0].dtype


def _declared(input_spec: Nest) -> tf.TensorSpec | None:
    if input_spec is None or isinstance(input_spec, Undeclared):
        return None
    specs = tf.nest.flatten(input_spec)
    if len(specs) != 1:
        names = [spec.name for spec in specs]
        raise ValueError(
            f"Image files feed one model input, but the model has {len(specs)}: "
            f"{names}. Pass a tf.data.Dataset or a generator that yields all of them."
        )
    return None if specs[0].shape.rank is None else specs[0]


def _check_axes(declared: tf.TensorSpec) -> None:
    axes = list(declared.shape)[1:]
    if len(axes) == 2 or (len(axes) == 3 and axes[2] in (None, *_NAMES)):
        return
    if len(axes) == 3 and axes[0] in _NAMES:
        raise ValueError(
            f"{_input(declared)}: it takes channels first, but images are decoded to "
            "(rows, height, width, channels). Pass image_size=(height, width) and a "
            "preprocess function that moves the channels, e.g. lambda batch: "
            "batch.transpose(0, 3, 1, 2), or put keras.layers.Permute((3, 1, 2)) in "
            "front of the model."
        )
    raise ValueError(
        f"{_input(declared)}, expected (rows, height, width, channels) with 1, 3 or 4 "
        "channels. Pass image_size=(height, width) and a preprocess function that "
        "makes images what the model takes, or a tf.data.Dataset."
    )


def _dtype(declared: tf.TensorSpec) -> tf.DType:
    if declared.dtype.is_floating:
        return _floats(declared.dtype)
    if declared.dtype.is_integer and declared.dtype.max >= 255:
        return tf.uint8
    raise ValueError(
        f"{_input(declared)} and dtype {declared.dtype.name}, expected floats, or "
        "integers that hold 0 to 255. Pass a tf.data.Dataset."
    )


def _floats(wanted: Wanted) -> tf.DType:
    # Narrower ones are rounded on the device, after the model has scaled them.
    given = cast_for(np.dtype(np.float32), "Images", wanted).dtype
    return tf.float64 if given == tf.float64 else tf.float32


def _size(
    declared: tf.TensorSpec, image_size: tuple[int, int] | None
) -> tuple[int, int]:
    height, width = list(declared.shape)[1:3]
    if image_size is None:
        if height is None or width is None:
            raise ValueError(
                f"{_input(declared)}: it takes images of any size. Pass "
                "image_size=(height, width)."
            )
        return height, width
    pairs = zip((height, width), image_size, strict=True)
    if any(axis not in (None, wanted) for axis, wanted in pairs):
        raise ValueError(
            f"Received image_size={image_size}. {_input(declared)}: leave image_size "
            f"out, or pass image_size=({height or 'height'}, {width or 'width'})."
        )
    return image_size


def _channels(declared: tf.TensorSpec | None) -> int | None:
    """The number on the last of four axes, if it is one of images."""
    axes = [] if declared is None else list(declared.shape)
    return axes[3] if len(axes) == 4 and axes[3] in _NAMES else None


def _input(declared: tf.TensorSpec) -> str:
    name = f" {declared.name!r}" if declared.name else ""
    return f"The model input{name} has shape {tuple(declared.shape)}"
