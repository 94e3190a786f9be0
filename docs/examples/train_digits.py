"""Trains a small CNN on the 1,797 scanned digits that scikit-learn ships.

Writes beside this file what the examples use:

* `digits.keras`: the model, trained on 1,347 of the rows. The one in the repository was
  written by Keras 3.5, so that every supported version reads it.
* `digits_images.npy`: all rows in their original order, float32 in [0, 1], of shape
  (1797, 8, 8, 1). Rows from 1,347 on were not seen in training.
* `digits_labels.npy`: the true digits, uint8, of shape (1797,).

Run with `python docs/examples/train_digits.py`; needs scikit-learn.
"""

import pathlib

import keras
import numpy as np
from sklearn.datasets import load_digits

FOLDER = pathlib.Path(__file__).parent
NUM_TRAINING_ROWS = 1347
NUM_EPOCHS = 40


def build_model() -> keras.Model:
    """Returns an untrained model from images of 8 x 8 to 10 probabilities."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(24, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(24, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Dropout(0.25),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dropout(0.25),
            keras.layers.Dense(10, activation="softmax", name="digit"),
        ],
        name="digits",
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main() -> None:
    """Trains the model, says how good it is on rows it has not seen, and saves."""
    keras.utils.set_random_seed(1)
    digits = load_digits()
    images = (digits.images[..., np.newaxis] / 16).astype(np.float32)
    labels = digits.target.astype(np.uint8)
    model = build_model()
    training = slice(0, NUM_TRAINING_ROWS)
    held_out = slice(NUM_TRAINING_ROWS, None)
    model.fit(images[training], labels[training], 32, epochs=NUM_EPOCHS, verbose=2)
    loss, accuracy = model.evaluate(images[held_out], labels[held_out], verbose=0)
    print(f"held-out rows: {len(labels[held_out])}, accuracy {accuracy:.4f}")
    model.save(FOLDER / "digits.keras")
    np.save(FOLDER / "digits_images.npy", images)
    np.save(FOLDER / "digits_labels.npy", labels)


if __name__ == "__main__":
    main()
