"""Errors for files that hold no model, or none that can be loaded."""

import os

EXPECTED = "a `.keras` file, a legacy `.h5` or `.hdf5` file, or a SavedModel folder"


def damaged(path: str) -> ValueError:
    """Returns the error for a truncated or damaged file."""
    return ValueError(
        f"{path!r} is truncated or damaged ({os.path.getsize(path)} bytes). Copy or "
        "save the model again."
    )


def foreign(path: str, expected: str) -> ValueError:
    """Returns the error for a file that holds something else."""
    return ValueError(
        f"{path!r} is not {expected}, in spite of its name. Expected {EXPECTED}, as "
        "written by `model.save('model.keras')`."
    )


def hostile(path: str, what: str) -> ValueError:
    """Returns the error for a file that no version of Keras would write."""
    return ValueError(
        f"{path!r} {what}, which Keras does not write, so it is not loaded. Check "
        "where the file comes from, or save the model again."
    )
