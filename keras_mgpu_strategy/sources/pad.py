"""How rows of unequal length are padded, as users ask for it."""

import dataclasses
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from keras_mgpu_strategy.system.integers import as_int, count
from keras_mgpu_strategy.system.tracebacks import short_traceback

Value: TypeAlias = int | float | bool | str | bytes


@short_traceback
@dataclasses.dataclass(frozen=True)
class Pad:
    """How rows of unequal length are padded and put into batches.

    A token is one step along the axis that varies, the first after the batch axis.
    Rows are sorted by length within a window, padded to one of a few lengths, run in
    batches with about the same number of tokens, and their results put back in order.

    Args:
        value: What rows are padded with, converted to the dtype of the input; a dict
            by the names of inputs if they differ. 0 is the empty string for strings.
        lengths: The lengths that rows are padded to, in tokens. `"auto"`: at most six,
            chosen from the first window; a longer row of a later window is padded to
            the next power of two.
        max_tokens: The most tokens of one call of the model on one replica, padding
            included. None: 65,536, or less if there is only one window or results
            are large; without a limit if there is a `batch_size`.
        side: Whether padding goes after the row's tokens (`"right"`) or before them.
        truncate: Cut rows that are longer than the longest of `lengths`, on the side
            where padding would go; otherwise they are an error.
        unmasked: Run the model even if nothing shows that it ignores padding. Results
            may then depend on the length that a row is padded to.
        window: How many rows are sorted by length at a time; fewer if they and their
            declared outputs take more than 64 MiB. Results are held until a window
            is complete.

    Raises:
        TypeError: A value has a wrong type.
        ValueError: A value is out of range.
    """

    value: Value | Mapping[str, Value] = 0
    lengths: Literal["auto"] | Sequence[int] = "auto"
    max_tokens: int | None = None
    side: Literal["right", "left"] = "right"
    truncate: bool = False
    unmasked: bool = False
    window: int = 16384

    def __post_init__(self) -> None:
        """Checks the values."""
        values = self.value
        for value in values.values() if isinstance(values, Mapping) else [values]:
            if not isinstance(value, numbers.Real | str | bytes | np.bool_):
                raise TypeError(
                    f"mgpu.Pad received value={self.value!r:.80} of type "
                    f"{type(value).__name__}. Expected a number, a string, or a dict "
                    "of them by the names of inputs."
                )
        if self.side not in ("right", "left"):
            raise ValueError(f"side={self.side!r}. Expected 'right' or 'left'.")
        for name in ("truncate", "unmasked"):
            if not isinstance(getattr(self, name), bool):
                given = getattr(self, name)
                raise TypeError(f"{name}={given!r:.80}. Expected True or False.")
        for name in ("max_tokens", "window"):
            if getattr(self, name) is not None or name == "window":
                object.__setattr__(self, name, count(name, getattr(self, name)))
        object.__setattr__(self, "lengths", _checked(self.lengths))

    @property
    def settings(self) -> dict[str, Any]:
        """What results depend on, besides the lengths, as JSON values."""
        about = dataclasses.asdict(self)
        values = self.value if isinstance(self.value, Mapping) else {"": self.value}
        about["value"] = {name: _shown(values[name]) for name in sorted(values)}
        del about["lengths"], about["unmasked"]
        return about


def check_pad(pad: Any) -> None:
    """Refuses what is not a `Pad`, such as True."""
    if not isinstance(pad, Pad | None):
        raise TypeError(
            f"pad={pad!r:.80} of type {type(pad).__name__}. Expected mgpu.Pad(), or "
            "None for rows of one length."
        )


def _shown(value: Value) -> Any:
    return value if isinstance(value, bool | int | float | str) else repr(value)


def _checked(lengths: Any) -> Any:
    if isinstance(lengths, str) and lengths == "auto":
        return lengths
    expected = 'Expected "auto" or a list of lengths, in tokens.'
    is_listed = isinstance(lengths, Sequence | np.ndarray)
    if not is_listed or isinstance(lengths, str | bytes):
        kind = type(lengths).__name__
        raise TypeError(f"lengths={lengths!r:.80} of type {kind}. {expected}")
    said = f"lengths={list(lengths)!r:.80}"
    found = {as_int(x, f"{said} holds {x!r}", expected, least=1) for x in lengths}
    if not found:
        raise ValueError(f"{said} is empty. {expected}")
    return tuple(sorted(found))
