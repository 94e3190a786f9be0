"""When chunks may run: how far ahead of the first, and in which order on a device.

A copy to a GPU waits for all that was launched by then. So two chunks are copied at a
time, and nothing is launched while the copy of a held chunk has not begun, unless
another is under way. No thread waits for a chunk that is not read yet. Chunks proceed
in the order in which they wait, since results that come too early are held.
"""

import contextlib
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator

_MOST_COPIES = 2
_MOST_NEAR_THE_END = 2
_ON = ("arriving", "copying", "copied", "computing")


class Track:
    """What one device does, for the threads that bring chunks to it."""

    def __init__(self, in_flight: int):
        self.in_flight = in_flight
        self._in_hand = 0
        self._is_reserved = False
        self.turns: Counter[str] = Counter()
        self.waiting: defaultdict[str, deque[Turn]] = defaultdict(deque)
        self.changed = threading.Condition()

    @contextlib.contextmanager
    def chunk(self, is_ending: Callable[[], bool]) -> Iterator[None]:
        """Lasts while a thread reads or holds a chunk; the last go to free devices."""
        most = min(self.in_flight, _MOST_NEAR_THE_END)

        def may() -> bool:
            return not self._is_reserved and (self._in_hand < most or not is_ending())

        with self.changed:
            self.changed.wait_for(may)
            self._in_hand += 1
        try:
            yield
        finally:
            with self.changed:
                self._in_hand -= 1
                self.changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Lasts while no other thread reads or holds a chunk; for one thread."""
        with self.changed:
            self._is_reserved = True
        try:
            with self.changed:
                self.changed.wait_for(lambda: not self._in_hand)
            yield
        finally:
            with self.changed:
                self._is_reserved = False
                self.changed.notify_all()

    @contextlib.contextmanager
    def turn(self, most: Callable[[], int | None]) -> Iterator["Turn"]:
        """Lasts while a chunk, of at `most` so many, is on its way or there."""

        def has_room() -> bool:
            limit = most()
            return limit is None or sum(map(self.turns.__getitem__, _ON)) < limit

        turn = Turn(self)
        turn.move("arriving", has_room)
        try:
            yield turn
        finally:
            turn.move("gone")


class Turn:
    """The path of one chunk; its times are by `time.perf_counter`."""

    def __init__(self, track: Track):
        self._track = track
        self._state = "gone"
        self.began = self.copied = self.launched = 0.0
        self.copies_alone = self.computes_alone = False

    def copy(self) -> None:
        """Waits until the chunk may be copied to the device."""
        turns = self._track.turns
        self.move("copying", lambda: turns["copying"] < _MOST_COPIES)
        self.copies_alone = turns["copying"] + turns["computing"] == 1
        self.began = time.perf_counter()

    def launch(self) -> None:
        """Waits until the copied chunk may be computed."""
        self.copied = time.perf_counter()
        self.move("copied")
        self.move("computing", self._may_launch)
        self.computes_alone = self._track.turns["computing"] == 1
        self.launched = time.perf_counter()

    def _may_launch(self) -> bool:
        turns = self._track.turns
        next_copy_has_begun = turns["copying"] > 0 or turns["arriving"] == 0
        return turns["computing"] < self._track.in_flight and next_copy_has_begun

    def move(self, state: str, may: Callable[[], bool] = lambda: True) -> None:
        """Enters another state once that is allowed, after those that wait for it."""
        track, waiting = self._track, self._track.waiting[state]
        with track.changed:
            waiting.append(self)
            try:
                track.changed.wait_for(lambda: waiting[0] is self and may())
                track.turns[self._state] -= 1
                track.turns[state] += 1
                self._state = state
            finally:
                waiting.remove(self)
                track.changed.notify_all()


class Backpressure:
    """Keeps results that wait for an earlier chunk within `most_rows`."""

    def __init__(self, most_rows: Callable[[], float]):
        self._most_rows = most_rows
        self._begun: set[int] = set()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def admitted(self, start: int) -> Iterator[None]:
        """Waits until a chunk, by its first row, is close enough to the first one."""
        with self._changed:
            self._begun.add(start)
            self._changed.wait_for(lambda: self._is_near(start))
        try:
            yield
        finally:
            with self._changed:
                self._begun.remove(start)
                self._changed.notify_all()

    def _is_near(self, start: int) -> bool:
        ahead = start - min(self._begun)
        return ahead == 0 or ahead <= self._most_rows()
