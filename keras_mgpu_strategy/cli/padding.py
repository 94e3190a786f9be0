"""The flags of `mgpu predict` on rows of unequal length. Imports no TensorFlow."""

from collections.abc import Mapping, Sequence
from typing import Any

from keras_mgpu_strategy.sources.pad import Pad

PAD_FLAGS = {
    "pad_value": "value",
    "pad_lengths": "lengths",
    "pad_side": "side",
    "max_tokens": "max_tokens",
    "truncate": "truncate",
    "unmasked": "unmasked",
}
"""Flag -> argument of `Pad`."""


def pad_of(given: Mapping[str, Any]) -> Pad | None:
    """What the flags of a command line ask for; None if it has none of them."""
    flags = [flag for flag in PAD_FLAGS if given.get(flag, False) is not False]
    asked = {PAD_FLAGS[flag]: given[flag] for flag in flags}
    if not asked:
        return None
    if "value" in asked:
        asked["value"] = _value(asked["value"])
    if "lengths" in asked:
        asked["lengths"] = _lengths(asked["lengths"])
    return Pad(**asked)


def _value(words: Sequence[str]) -> Any:
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


def _lengths(words: Sequence[str]) -> list[int]:
    if not words or not all(word.isdecimal() and int(word) for word in words):
        raise ValueError(
            f"--pad_lengths={','.join(words):.80}. Expected integers of at least 1, "
            "such as 64,512."
        )
    return list(map(int, words))
