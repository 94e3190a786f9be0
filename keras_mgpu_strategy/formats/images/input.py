"""Folders and lists of images as input: one row per file, checked before any work."""

import dataclasses
import operator
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_mgpu_strategy.formats.images.decoding import load_fn
from keras_mgpu_strategy.formats.images.form import COLOR_MODES, form_for, wanted_dtype
from keras_mgpu_strategy.formats.images.listing import find_images
from keras_mgpu_strategy.formats.images.scaling import (
    SCALES,
    BatchCall,
    batch_fn,
    check_form,
    check_preprocess,
)
from keras_mgpu_strategy.formats.images.source import ImageSource
from keras_mgpu_strategy.formats.paths import short_repr
from keras_mgpu_strategy.system.tracebacks import short_traceback
from keras_mgpu_strategy.types import Nest


@short_traceback
@dataclasses.dataclass(frozen=True)
class Images:
    """A folder or list of image files, one row each.

    PNG, JPEG, BMP, GIF and WebP, recognized by their content; of an animation, the
    first frame. They are decoded and resized in parallel, bilinear and not antialiased,
    as `keras.utils.image_dataset_from_directory` does. Files that TensorFlow decodes
    wrongly or not at all need the extra `images`.

    Args:
        paths: A folder, which is searched recursively and read in the order of
            `image_dataset_from_directory(shuffle=False)`, hidden files left out; a
            file; or a sequence of files, read in its order.
        image_size: `(height, width)` that images are resized to; None for what the
            model declares.
        preprocess: "none" for pixels from 0 to 255 (uint8 for a model that takes
            integers, float64 for one that takes float64, otherwise float32), which is
            right for a model that scales its input itself; "unit" for pixels from 0 to
            1; "imagenet" for pixels from 0 to 1, minus (0.485, 0.456, 0.406), divided
            by (0.229, 0.224, 0.225), as
            `keras.applications.imagenet_utils.preprocess_input(mode="torch")` does;
            "module:function", or a function. It takes a float32 array from 0 to 255 of
            shape `(rows, height, width, channels)`, which it may overwrite, and returns
            what the model accepts for these rows; its results are checked against the
            dtype of the model like rows of any other input. It is called on one
            placeholder image first. With it, `image_size` and `color_mode` need not be
            what the model declares.
        on_bad_file: "raise" for an error that names the file; "skip" to continue with
            zeros in its place and a row that is marked as missing in result files.
        color_mode: "rgb", "grayscale" or "rgba"; None for what the model declares, or
            "rgb" if it declares nothing.

    Raises:
        TypeError: `paths` is not a path or a sequence of paths.
        ValueError: An argument is not one of these.
    """

    paths: str | os.PathLike | Sequence[str | os.PathLike]
    image_size: tuple[int, int] | None = None
    preprocess: str | Callable[[np.ndarray], Any] = "none"
    on_bad_file: str = "raise"
    color_mode: str | None = None
    __repr__ = short_repr

    def __post_init__(self) -> None:
        """Checks the arguments; raises as the class says."""
        object.__setattr__(self, "paths", _checked_paths(self.paths))
        object.__setattr__(self, "image_size", _checked_size(self.image_size))
        check_preprocess(self.preprocess)
        if self.on_bad_file not in ("raise", "skip"):
            raise ValueError(
                f"Received on_bad_file={self.on_bad_file!r}, expected 'raise' or "
                "'skip'."
            )
        if self.color_mode is not None and self.color_mode not in COLOR_MODES:
            raise ValueError(
                f"Received color_mode={self.color_mode!r}, expected 'rgb', "
                "'grayscale', 'rgba' or None."
            )

    def open_rows(self, input_spec: Nest) -> ImageSource:
        """Lists the files; see `FileInput.open_rows`.

        Raises:
            OSError: There is no such file or folder.
            ValueError: There is no image, or images do not fit the model.
        """
        function = batch_fn(self.preprocess)
        form = form_for(
            input_spec, self.image_size, self.color_mode, is_free=function is not None
        )
        check_form(self.preprocess, form)
        scale = SCALES[str(self.preprocess) if function is None else "none"]
        wanted = wanted_dtype(input_spec)
        return ImageSource(
            find_images(self.paths, must_read=self.on_bad_file == "raise"),
            form,
            load_fn(form, scale),
            None if function is None else BatchCall(function, form, wanted),
            skips=self.on_bad_file == "skip",
            settings=(form.shape, form.dtype.name, function or self.preprocess),
        )


def _checked_paths(paths: Any) -> str | os.PathLike | tuple[str | os.PathLike, ...]:
    if isinstance(paths, (str, os.PathLike)):
        return paths
    if not isinstance(paths, Sequence) or isinstance(paths, bytes):
        raise TypeError(
            f"Received paths of type {type(paths).__name__}, expected a folder, a file "
            "or a list of files, each as str or pathlib.Path."
        )
    for row, path in enumerate(paths):
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(
                f"Received {path!r} as row {row} of the image files, expected a str or "
                "pathlib.Path."
            )
    return tuple(paths)


def _checked_size(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    try:
        height, width = map(operator.index, size)
        if min(height, width) > 0:
            return height, width
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"Received image_size={size!r}, expected (height, width) in pixels, such as "
        "(224, 224)."
    )
