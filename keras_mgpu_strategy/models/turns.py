"""Flips and quarter turns of images, `(n, height, width, channels)`, bit for bit.

All inputs of four axes are images. So are outputs of four axes whose height and width
are those of an image, or an integer part or multiple of both: they are turned back.
If the shapes do not tell, there is an error, as soon as they are known.
"""

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.element_forms import map_nest
from keras_mgpu_strategy.models.libraries import layers_of
from keras_mgpu_strategy.models.replicated import ReplicatedModel
from keras_mgpu_strategy.types import Nest


def _flip(*axes: int) -> Callable[[tf.Tensor], tf.Tensor]:
    return lambda images: tf.reverse(images, axes)


def _quarter(axis: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """A quarter turn as by `np.rot90`: to the left for axis 1, to the right for 2."""
    return lambda images: tf.reverse(tf.transpose(images, [0, 2, 1, 3]), [axis])


# Each with its inverse.
TURNS = MappingProxyType(
    {
        "flip_left_right": (_flip(2), _flip(2)),
        "flip_up_down": (_flip(1), _flip(1)),
        "rot90": (_quarter(1), _quarter(2)),
        "rot180": (_flip(1, 2), _flip(1, 2)),
        "rot270": (_quarter(2), _quarter(1)),
    }
)
_QUARTERS = ("rot90", "rot270")
_OWN = "pass `mgpu.View(forward, inverse)` with functions of your own"


def check_turn(name: str, member: ReplicatedModel) -> None:
    """Raises ValueError if a view does not fit what a model declares."""
    layers = layers_of(member.model) if hasattr(member.model, "layers") else []
    for layer in layers:
        if getattr(layer, "data_format", None) == "channels_first":
            raise ValueError(
                f"The view {name!r} takes images as (n, height, width, channels), but "
                f"layer {layer.name!r} has data_format='channels_first'. To view "
                f"another layout, {_OWN}."
            )
    if member.input_spec is None or member.feeding.whole is not None:
        return
    images = _images_in(name, member.input_spec)
    if member.output_shapes is not None and not any(None in x[1:3] for x in images):
        for shape in tf.nest.flatten(member.output_shapes):
            if shape[1:].is_fully_defined():
                _is_turned(name, shape, images)


def turned(name: str, x: Nest) -> tuple[Nest, Callable[[Nest], Nest]]:
    """The inputs of a model with all images turned, and what turns outputs back."""
    forward, inverse = TURNS[name]
    images = _images_in(name, x)
    for shape in images if name in _QUARTERS else ():
        if None in shape[1:3]:
            raise ValueError(
                f"The view {name!r} takes square images, but heights or widths of "
                f"these rows differ: {tuple(shape)}. Use flips and rot180, or run rows "
                "of each size on their own."
            )

    def back(output: Any) -> Any:
        is_turned = is_tensor(output) and _is_turned(name, output.shape, images)
        return inverse(output) if is_turned else output

    new = map_nest(lambda leaf: forward(leaf) if _is_image(leaf) else leaf, x)
    return new, lambda outputs: tf.nest.map_structure(back, outputs)


def _images_in(name: str, nest: Nest) -> list[tf.TensorShape]:
    """Shapes of the images in a nest of tensors or specs."""
    leaves = tf.nest.flatten(nest)
    images = [leaf.shape for leaf in leaves if _is_image(leaf)]
    if not images and not any(_is_open(leaf) for leaf in leaves):
        raise ValueError(
            f"The view {name!r} takes images, (n, height, width, channels), but the "
            f"model takes {shown(nest)}. To view other rows, {_OWN}."
        )
    for shape in images:
        height, width = shape[1:3]
        if name in _QUARTERS and None not in (height, width) and height != width:
            raise ValueError(
                f"The view {name!r} takes square images, but the model takes images of "
                f"shape {tuple(shape)}. Use flips and rot180, or make them square."
            )
    return images


def _is_turned(
    name: str, shape: tf.TensorShape, images: Sequence[tf.TensorShape]
) -> bool:
    """Whether an output of this shape is an image; ValueError if it does not tell."""
    rank, size = shape.rank, tuple(shape[1:3]) if shape.rank else ()
    known = [tuple(image[1:3]) for image in images if None not in image[1:3]]
    if rank == 4 and None not in size and any(_is_scaled(size, x) for x in known):
        return True
    # Of a sequence, unless it has the very size of an image.
    is_other = rank == 3 and len(known) == len(images) and size not in known
    if is_other or rank not in (None, 3, 4) or (rank == 4 and size == (1, 1)):
        return False
    shapes = ", ".join(str(tuple(image)) for image in images)
    raise ValueError(
        f"The view {name!r} cannot turn an output of shape "
        f"{'unknown' if rank is None else tuple(shape)} back, for images of shape "
        f"{shapes}. Expected four axes, with height and width of the image, or an "
        "integer part or multiple of both; outputs of one or two axes are not images. "
        f"For others, {_OWN}."
    )


def _is_scaled(size: tuple[Any, ...], image: tuple[Any, ...]) -> bool:
    """Whether one is an integer multiple of the other."""
    for small, large in ((size, image), (image, size)):
        scale = large[0] // small[0] if small[0] else 0
        if scale and tuple(scale * axis for axis in small) == large:
            return True
    return False


def is_tensor(leaf: Any) -> bool:
    """Whether a leaf is a dense tensor, or the spec of one."""
    return isinstance(leaf, tf.Tensor | tf.TensorSpec)


def shown(nest: Nest) -> str:
    """Dtypes and shapes, for an error."""
    shapes = [
        f"{leaf.dtype.name} {'?' if leaf.shape.rank is None else tuple(leaf.shape)}"
        if is_tensor(leaf)
        else type(leaf).__name__
        for leaf in tf.nest.flatten(nest)
    ]
    return ", ".join(shapes)


def _is_image(leaf: Any) -> bool:
    return is_tensor(leaf) and leaf.shape.rank == 4 and leaf.dtype != tf.string


def _is_open(leaf: Any) -> bool:
    return isinstance(leaf, tf.TensorSpec) and leaf.shape.rank is None
