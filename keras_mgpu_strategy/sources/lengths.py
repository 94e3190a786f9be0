"""Chooses the few lengths that rows of unequal length are padded to."""

import numpy as np

MOST = 6
_MOST_CANDIDATES = 256
_WORTH = 0.02


def chosen_lengths(lengths: np.ndarray) -> tuple[int, ...]:
    """At most six lengths for these rows, in ascending order; the last is the longest.

    They cost the fewest tokens of all such choices among at most 256 lengths that
    occur. Fewer are chosen if that costs less than a fiftieth more.
    """
    rows = np.maximum(lengths, 1)
    if not len(rows):
        return (1,)
    candidates = _candidates(rows)
    below = np.searchsorted(np.sort(rows), candidates, side="right")
    costs, choices = _costs(candidates, below)
    wanted = (1 + _WORTH) * costs[-1]
    number = next(k for k, cost in enumerate(costs) if cost <= wanted)
    chosen, place = [], len(candidates) - 1
    for choice in reversed(choices[: number + 1]):
        chosen.append(int(candidates[place]))
        place = choice[place]
    return tuple(reversed(chosen))


def _candidates(rows: np.ndarray) -> np.ndarray:
    """Lengths that occur: all, or quantiles of the rows and of their tokens."""
    found, counts = np.unique(rows, return_counts=True)
    if len(found) <= _MOST_CANDIDATES:
        return found
    levels = np.linspace(0, 1, _MOST_CANDIDATES // 2 + 1)[1:]
    shares = [np.cumsum(counts), np.cumsum(counts * found)]
    places = [np.searchsorted(share, levels * share[-1]) for share in shares]
    return found[np.unique(np.minimum(np.concatenate(places), len(found) - 1))]


def _costs(
    candidates: np.ndarray, below: np.ndarray
) -> tuple[list[int], list[np.ndarray]]:
    """The tokens of the best 1, 2, ... lengths, and the length before each of them."""
    best = candidates * below
    choices = [np.full(len(candidates), -1)]
    costs = [int(best[-1])]
    # Of row i: all rows up to candidate i are paid for, the others up to j cost j each.
    further = candidates * (below - below[:, None])
    further = np.where(further >= 0, further, np.iinfo(np.int64).max // 2)
    for _ in range(min(MOST, len(candidates)) - 1):
        totals = best[:, None] + further
        choices.append(totals.argmin(axis=0))
        best = totals.min(axis=0)
        costs.append(int(best[-1]))
    return costs, choices
