"""Prints how many images per second are read, one at a time and by `Images`.

    python benchmarks/image_throughput.py FOLDER [--size=224] [--batch_size=64]

No model runs. The first pass over the folder, which fills the cache of the operating
system, is not counted. Files that cannot be decoded are skipped.
"""

import argparse
import time
from collections.abc import Callable

import tensorflow as tf

from keras_mgpu_strategy.formats.images.input import Images
from keras_mgpu_strategy.formats.images.source import ImageSource


def read_one_by_one(source: ImageSource, size: int) -> None:
    """Reads with TensorFlow, in a plain loop."""
    for name in source.marks(0, source.num_rows).names or ():
        try:
            contents = tf.io.read_file(name)
            image = tf.image.decode_image(contents, 3, expand_animations=False)
            tf.image.resize(image, (size, size)).numpy()
        except tf.errors.OpError:
            continue


def read_all(source: ImageSource, batch_size: int) -> None:
    """Reads as a run of a model does."""
    for _ in source.batches(batch_size):
        pass


def rate(source: ImageSource, read: Callable[[], None]) -> float:
    """Images per second."""
    begin = time.perf_counter()
    read()
    return source.num_rows / (time.perf_counter() - begin)


def main() -> None:
    """Reads the arguments and prints the rates."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch_size", type=int, default=64)
    args = parser.parse_args()
    spec = tf.TensorSpec([None, args.size, args.size, 3], tf.float32)
    found = Images(args.folder, on_bad_file="skip").open_rows(spec)
    names = found.marks(0, found.num_rows).names or ()
    paths = [f"{args.folder}/{name}" for name in names]
    source = Images(paths, on_bad_file="skip").open_rows(spec)
    read_all(source, args.batch_size)
    by_loop = rate(source, lambda: read_one_by_one(source, args.size))
    by_source = rate(source, lambda: read_all(source, args.batch_size))
    print(f"{source.num_rows} images of {args.folder} to {args.size} x {args.size}")
    print(f"one by one  {by_loop:10,.0f} images/s")
    print(f"Images      {by_source:10,.0f} images/s  {by_source / by_loop:.2f} times")


if __name__ == "__main__":
    main()
