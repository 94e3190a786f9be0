"""How many tokens of an output belong to a row of a given length."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class TokenCounts:
    """`gain` further tokens of an output for each `stride` of the row, from an origin.

    Layers that slide over the tokens, such as convolutions and pooling, and those that
    repeat them, give this whatever their padding; by default an output has one token
    for each of the row.
    """

    stride: int = 1
    gain: int = 1
    origin: tuple[int, int] = (0, 0)  # a length where the count rises, and that count

    def __call__(self, lengths: Any) -> Any:
        """Numbers of tokens of rows of these lengths."""
        length, count = self.origin
        found = (np.asarray(lengths) - length) // self.stride * self.gain + count
        return np.maximum(found, 0)


@dataclasses.dataclass(frozen=True)
class PaddedOutputs:
    """Which results vary with the length of a row.

    `tokens` says of each flat result how many of its tokens (axis 1) belong to a row;
    None if all rows have one shape. `is_static` if the model has to be traced for each
    length: without a known one, it fails or computes something else.
    """

    tokens: tuple[TokenCounts | None, ...]
    is_static: bool = False


def counted(count: Callable[[int], int], longest: int) -> TokenCounts | None:
    """Finds the rule behind `count`, tried below `longest`; None if there is none."""
    last = _rise(count, longest)
    before = last and _rise(count, last - 1)
    if not last or not before:
        return None
    gain = count(last) - count(before)
    rule = TokenCounts(last - before, gain, (last, count(last)))
    tried = {longest // part for part in range(1, 8)} | {*range(1, 9), before - 1}
    # Rows too short for a kernel may give any number, where others fail.
    is_rule = all(count(length) == rule(length) for length in tried if rule(length))
    return rule if is_rule else None


def _rise(count: Callable[[int], int], length: int) -> int | None:
    """The shortest length with as many tokens as this one; None if it is 1 or less."""
    tokens, step, high = count(length), 1, length
    while (low := high - step) > 0 and count(low) == tokens:
        high, step = low, 2 * step
    low = max(low, 0)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if count(middle) == tokens else (middle, high)
    return high if high > 1 else None
