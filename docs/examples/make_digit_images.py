"""Makes a folder of image files out of the scanned digits beside this file.

    python docs/examples/make_digit_images.py FOLDER [--count=2000] [--damaged=0]

Writes `FOLDER/<digit>/<number>.png` or `.jpg`, in turn, 32 x 32 pixels, gray. After the
1,797 digits they are used again, shifted by half a pixel of the scan. `--damaged`
files, chosen by `--seed`, are empty, cut off, or no image. The same arguments give the
same files.
"""

import argparse
import pathlib

import numpy as np
import tensorflow as tf

EXAMPLES = pathlib.Path(__file__).parent
SCALE = 4  # pixels of the file, in each direction, for one of the scan
SHIFTS = [(0, 0), (0, 2), (2, 0), (0, -2), (-2, 0)]


def pixels(digit: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
    """Returns a digit of shape (8, 8, 1), 0 to 1, as uint8 of shape (32, 32, 1)."""
    large = digit.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
    return np.round(np.roll(large, shift, axis=(0, 1)) * 255).astype(np.uint8)


def encoded(image: np.ndarray, number: int) -> bytes:
    """Returns the contents of a PNG file, or of a JPEG file for odd numbers."""
    if number % 2:
        return tf.io.encode_jpeg(image, quality=95).numpy()
    return tf.io.encode_png(image).numpy()


def damage(contents: bytes, kind: int) -> bytes:
    """Returns an empty file, one that is cut off, or one that is no image."""
    return (b"", contents[: len(contents) // 2], b"This is not an image.\n")[kind % 3]


def make(folder: pathlib.Path, count: int, num_damaged: int, seed: int) -> None:
    """Writes the files."""
    digits = np.load(EXAMPLES / "digits_images.npy")
    labels = np.load(EXAMPLES / "digits_labels.npy")
    order = np.random.default_rng(seed).permutation(count)
    damaged = {int(number): kind for kind, number in enumerate(order[:num_damaged])}
    for number in range(count):
        turn, row = divmod(number, len(digits))
        image = pixels(digits[row], SHIFTS[turn % len(SHIFTS)])
        contents = encoded(image, number)
        if number in damaged:
            contents = damage(contents, damaged[number])
        suffix = ".jpg" if number % 2 else ".png"
        path = folder / str(labels[row]) / f"{number:06}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)


def main() -> None:
    """Reads the arguments and writes the files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path, help="a new or empty folder")
    parser.add_argument("--count", type=int, default=2000, help="number of files")
    parser.add_argument("--damaged", type=int, default=0, help="how many are damaged")
    parser.add_argument("--seed", type=int, default=0, help="chooses the damaged ones")
    args = parser.parse_args()
    if not 0 <= args.damaged <= args.count:
        parser.error(f"--damaged={args.damaged}: expected 0 to {args.count}")
    if args.folder.exists() and any(args.folder.iterdir()):
        parser.error(f"{args.folder} is not empty: expected a new or empty folder")
    make(args.folder, args.count, args.damaged, args.seed)
    print(f"wrote {args.count} images to {args.folder}, {args.damaged} damaged")


if __name__ == "__main__":
    main()
