"""The models of a command line. Imports no TensorFlow."""

import glob
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from keras_mgpu_strategy.system.environment import expanded


def models_of(text: str) -> tuple[pathlib.Path, ...]:
    """One model, several with commas between, or what a pattern finds, by name."""
    path = pathlib.Path(expanded(text))
    if path.exists() or not text:  # whatever is in its name
        return (path,)
    words = [word.strip() for word in text.split(",")]
    return tuple(path for word in words for path in _found(word, text))


def check_models(paths: Sequence[pathlib.Path], loading: Mapping[str, Any]) -> None:
    """Checks that they exist, and that there is something to combine."""
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"There is no model {path}. Check the path.")
    if "combine" in loading and len(paths) == 1 and "views" not in loading:
        raise ValueError(
            f"--combine={loading['combine']} with one model, {paths[0]}. Give several, "
            'such as a.keras,b.keras or "m*.keras", or --views, or leave it out.'
        )


def _found(word: str, text: str) -> list[pathlib.Path]:
    if not word:
        raise ValueError(
            f"A name is missing in the models {text!r}. Expected paths such as "
            "a.keras,b.keras."
        )
    path = pathlib.Path(expanded(word))
    if path.exists() or not glob.has_magic(word):
        return [path]
    found = sorted(map(pathlib.Path, glob.glob(str(path))))
    if not found:
        raise FileNotFoundError(f"No model matches {word!r}. Check the pattern.")
    return found
