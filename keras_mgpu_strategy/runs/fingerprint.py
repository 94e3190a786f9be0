"""What a run's results depend on, as a journal stores and compares it."""

import pathlib
import threading
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.element_forms import ABSENT
from keras_mgpu_strategy.outputs.journal import Journal
from keras_mgpu_strategy.runs.model_rows import ModelRows
from keras_mgpu_strategy.system.messages import short
from keras_mgpu_strategy.types import Origin

_TIMES = "times of the files"
# Begins what is None where the values of an array were not looked at.
_VALUES = "values of "
_PAUSE_SECONDS = 0.004


def fingerprint(
    rows: ModelRows, origin: Origin, settings: dict[str, Any]
) -> dict[str, Any]:
    """Describes a run; `settings` are names and values of what else it depends on."""
    # Journals of earlier versions know nothing of what is declared.
    spec = getattr(rows.source, "received_spec", rows.source.spec)
    structure = repr(tf.nest.map_structure(lambda _: "rows", spec))
    absent = {"absent inputs": structure} if repr(ABSENT) in structure else {}
    leaves = tf.nest.flatten(spec)
    return {
        "input": [f"{leaf.dtype.name} {[*leaf.shape]}" for leaf in leaves],
        **absent,
        "rows of the input": rows.whole.num_rows,
        **origin.about,
        _TIMES: origin.times,
        **settings,
    }


def check_same(journal: Journal, now: dict[str, Any], origin: Origin) -> None:
    """Refuses another run; copies of files with the same content are the same."""
    before = journal.about["run"]
    if journal.is_old:
        raise ValueError(
            f"{journal.path} was written by an older version of this package, which "
            "recorded too little of the input to know whether it is still the same. "
            "Nothing was touched. Finish the run with that version, or pass "
            "overwrite=True to begin again."
        )
    if before.get("shard") is None:
        now = {**now, "shard": None}
    differing = _differing(before, now)
    if differing.keys() == {_TIMES} and journal.progress and origin.digest:
        known = journal.progress.content
        if known is None:
            raise _unsure(journal.path, *differing[_TIMES])
        contents = known, origin.digest(lambda: True)
        differing = {"content of the files": contents} if len({*contents}) > 1 else {}
    if differing:
        raise _other_run(journal, differing)


def _differing(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Name -> the values that differ."""
    names = sorted(before.keys() | now.keys())
    pairs = {name: (before.get(name), now.get(name)) for name in names}
    return {
        name: pair
        for name, pair in pairs.items()
        if pair[0] != pair[1] and not (name.startswith(_VALUES) and None in pair)
    }


def _other_run(journal: Journal, differing: dict[str, Any]) -> ValueError:
    lines = "; ".join(
        f"{name}: {short(before)} before, {short(now)} now"
        for name, (before, now) in differing.items()
    )
    said = f"{journal.path} belongs to a different run, so it cannot be resumed"
    if journal.progress is not None and journal.progress.finished:
        said = "The output is finished, but another run wrote it"
    return ValueError(
        f"{said} ({lines}). Nothing was touched. Run it as before, or pass "
        "overwrite=True to begin again."
    )


def _unsure(journal: pathlib.Path, before: Any, now: Any) -> ValueError:
    return ValueError(
        f"The run of {journal} cannot be resumed: the files of the input were changed "
        f"at {before} before, and at {now} now. Samples of them are the same, but the "
        "earlier run ended before it had read them as a whole, so that an edit between "
        "the samples cannot be ruled out. Nothing was touched. If they are mere "
        "copies, give them their former times (touch -d, or copy them again by cp -p "
        "or rsync -t); otherwise pass overwrite=True to begin again."
    )


class ContentWatch:
    """Reads a large input in full during a run, 200 MB a second, to know its copies."""

    def __init__(self, origin: Origin, found: str | None):
        self.found = found
        self._digest = origin.digest
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts reading."""
        if self._digest is not None and self.found is None:
            self._thread = threading.Thread(
                target=self._read, name="mgpu-content", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Stops reading; calling it twice is harmless."""
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()

    def _read(self) -> None:
        assert self._digest is not None
        # A pause after each MiB.
        self.found = self._digest(lambda: not self._is_over.wait(_PAUSE_SECONDS))
