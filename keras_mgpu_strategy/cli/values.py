"""What the words of a command line mean. Imports no TensorFlow."""

import glob
import json
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

from keras_mgpu_strategy.formats.registry import format_of, output_suffixes
from keras_mgpu_strategy.system.environment import expanded


def path_of(text: str) -> pathlib.Path:
    """A path as a user writes it, with `~` for the home folder."""
    return pathlib.Path(expanded(text))


def models_of(text: str) -> tuple[pathlib.Path, ...]:
    """One model, several with commas between, or what a pattern finds, by name."""
    path = path_of(text)
    if path.exists() or not text:  # whatever is in its name
        return (path,)
    words = [word.strip() for word in text.split(",")]
    return tuple(path for word in words for path in _found(word, text))


def _found(word: str, text: str) -> list[pathlib.Path]:
    if not word:
        raise ValueError(
            f"A name is missing in the models {text!r}. Expected paths such as "
            "a.keras,b.keras."
        )
    path = path_of(word)
    if path.exists() or not glob.has_magic(word):
        return [path]
    found = sorted(map(pathlib.Path, glob.glob(str(path))))
    if not found:
        raise FileNotFoundError(f"No model matches {word!r}. Check the pattern.")
    return found


def _labels(text: str) -> pathlib.Path | str:
    """A path if there is such a file, or if the text looks like one."""
    path = path_of(text)
    is_path = path.exists() or path.name != text or format_of(path) is not None
    return path if is_path else text


def _output(text: str) -> pathlib.Path:
    path, suffixes = path_of(text), output_suffixes()
    if path.suffix.lower() in suffixes:
        return path
    expected = f"a name that ends in one of {', '.join(suffixes)}"
    if path.suffix.lower() == ".npz":
        expected = f"{path.with_suffix('.npy')}, a folder with a .npy file for each "
        expected += "output if the model has several"
    raise ValueError(f"--output={path} cannot be written. Expected {expected}.")


def _read_options(text: str) -> dict[str, Any]:
    try:
        options = json.loads(text)
    except (ValueError, RecursionError) as error:
        options = error
    if not isinstance(options, dict):
        raise ValueError(
            f"--read_options={text:.60}. Expected a JSON object of arguments for "
            """pandas.read_csv, such as --read_options='{"header": null}'."""
        )
    return options


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if match is None or not int(match[1]) < int(match[2]):
        raise ValueError(
            f"--shard={text:.60}. Expected I/N with I from 0 to N-1, such as 0/8 for "
            "the first of 8 ranges of the rows."
        )
    return int(match[1]), int(match[2])


def _image_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9][0-9]{0,4})[xX]([1-9][0-9]{0,4})", text)
    if match is None:
        raise ValueError(
            f"--image_size={text:.60}. Expected height and width in pixels, such as "
            "224x224."
        )
    return int(match[1]), int(match[2])


def _pad_value(words: Sequence[str]) -> Any:
    """One value, or one by the name of each input."""
    text = ",".join(words)
    if "=" not in text:
        return _number(text)
    pairs = [word.partition("=") for word in words]
    if not all(name and equals for name, equals, _ in pairs):
        raise ValueError(
            f"--pad_value={text:.80}. Expected one value, or NAME=VALUE for each "
            "input, such as input_ids=1,attention_mask=0."
        )
    return {name: _number(value) for name, _, value in pairs}


def _number(text: str) -> int | float | str:
    """A number if it is one, otherwise the text, for models of strings."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _pad_lengths(words: Sequence[str]) -> list[int]:
    if not words or not all(word.isdecimal() and int(word) for word in words):
        raise ValueError(
            f"--pad_lengths={','.join(words):.80}. Expected integers of at least 1, "
            "such as 64,512."
        )
    return list(map(int, words))


PARSERS: dict[str, Callable[[Any], Any]] = {
    "output": _output,
    "labels": _labels,
    "shard": _shard,
    "image_size": _image_size,
    "read_options": _read_options,
    "pad_value": _pad_value,
    "pad_lengths": _pad_lengths,
    "verbose": lambda text: text if text == "auto" else int(text),
}
