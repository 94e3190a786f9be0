"""Real image files, what a model declares, and images read one by one."""

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.formats.images.input import Images


def takes(*shape, dtype=tf.float32, name="image"):
    """What a model that takes rows of a shape declares."""
    return tf.TensorSpec([None, *shape], dtype, name=name)


def pixels(height, width, channels=3, seed=0):
    """Random smooth pixels: JPEG files of noise could decode to anything."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (3, 4, channels))
    return tf.cast(tf.image.resize(coarse, (height, width)), tf.uint8)


def write_png(path, image, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tf.io.encode_png(image, **kwargs).numpy())
    return path


def write_jpeg(path, image, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tf.io.encode_jpeg(image, **kwargs).numpy())
    return path


def write_folder(folder, count):
    """Writes PNG and JPEG files of many sizes; returns their paths in order."""
    paths = []
    for number in range(count):
        image = pixels(9 + number % 5, 7 + number % 3, seed=number)
        write, suffix = ((write_png, "png"), (write_jpeg, "jpg"))[number % 2]
        paths.append(write(folder / f"{number // 4:02}" / f"{number}.{suffix}", image))
    return sorted(paths, key=lambda path: path.relative_to(folder).as_posix())


def reference(path, size, channels=3):
    """A file as `keras.utils.image_dataset_from_directory` reads it."""
    image = tf.image.decode_image(
        tf.io.read_file(str(path)), channels, expand_animations=False
    )
    return tf.image.resize(image, size, method="bilinear").numpy()


def references(paths, size, channels=3):
    return np.stack([reference(path, size, channels) for path in paths])


def read_all(source, batch_size=4, start=0):
    """Returns all rows, after checking that batches follow each other."""
    parts, position = [], start
    for batch in source.batches(batch_size, start):
        assert batch.start == position
        assert batch.num_rows == len(batch.inputs)
        assert type(batch.inputs) is np.ndarray
        position += batch.num_rows
        assert batch.num_rows == batch_size or position == source.num_rows
        parts.append(batch.inputs)
    assert position == source.num_rows
    return np.concatenate(parts)


def one(path, *shape, **kwargs):
    """Reads one file for a model that takes such rows."""
    return read_all(Images([path], **kwargs).open_rows(takes(*shape)))[0]


def missing_rows(source):
    """The rows that a source marks as missing."""
    missing = source.marks(0, source.num_rows).missing
    return [] if missing is None else np.flatnonzero(missing).tolist()
