"""Describes a run in words and numbers that a journal can store and compare."""

import pathlib
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.element_forms import ABSENT
from keras_mgpu_strategy.outputs.journal import Journal
from keras_mgpu_strategy.runs.run import Job
from keras_mgpu_strategy.types import Origin

_TIMES = "times of the files"
_VALUES = "values of "
"""Begins what is None where the values of an array were not looked at."""


def fingerprint(
    model: str, job: Job, origin: Origin, settings: dict[str, Any]
) -> dict[str, Any]:
    """Describes a run by what its results depend on.

    Args:
        model: Digest of the model.
        job: The run.
        origin: Origin of its input.
        settings: Names and values of what else must be the same.
    """
    return {
        "model": model,
        "input": _described(job.source.spec),
        **_absent(job.source.spec),
        "rows of the input": job.total_rows,
        **origin.about,
        _TIMES: origin.times,
        **settings,
    }


def check_same(journal: Journal, now: dict[str, Any], origin: Origin) -> None:
    """Checks that a run is the one that a journal describes.

    Files with different times but, read in full, the same content are the same. So is
    a shard of an output that has all its rows.

    Raises:
        ValueError: The run is different; names what differs.
    """
    before = journal.about["run"]
    if journal.is_old:
        raise ValueError(
            f"{journal.path} was written by an older version of this package, which "
            "noted too little of the input to know whether it is still the same. "
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
        f"{name}: {_short(before)} before, {_short(now)} now"
        for name, (before, now) in differing.items()
    )
    said = f"{journal.path} is of another run, so it cannot be resumed ({lines})"
    if journal.progress is not None and journal.progress.finished:
        said = f"The output is finished, but another run wrote it ({lines})"
    return ValueError(
        f"{said}. Nothing was touched. Run it as before, or pass overwrite=True to "
        "begin again."
    )


def _unsure(journal: pathlib.Path, before: Any, now: Any) -> ValueError:
    return ValueError(
        f"The run of {journal} cannot be resumed: the files of the input were changed "
        f"at {before} before, and at {now} now. Samples of them are the same, but the "
        "earlier run ended before it had read them as a whole, so that an edit between "
        "the samples cannot be ruled out. Nothing was touched. If they are mere "
        "copies, give them their former times (touch -d, or copy them again by cp -p "
        "or rsync -t); else pass overwrite=True to begin again."
    )


def _described(spec: Any) -> list[str]:
    return [f"{leaf.dtype.name} {[*leaf.shape]}" for leaf in tf.nest.flatten(spec)]


def _absent(spec: Any) -> dict[str, Any]:
    """Which inputs are absent, which `_described` does not show."""
    structure = repr(tf.nest.map_structure(lambda _: "rows", spec))
    return {"absent inputs": structure} if repr(ABSENT) in structure else {}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]}..."
