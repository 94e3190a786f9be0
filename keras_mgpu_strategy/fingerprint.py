"""What a run is, in words and numbers that a journal can keep and compare."""

import pathlib
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.job import Job


def fingerprint(model: str, job: Job, settings: dict[str, Any]) -> dict[str, Any]:
    """Describes a run by what its results depend on.

    Args:
        model: Digest of the model.
        job: The run.
        settings: Names and values of what else must be the same.
    """
    return {
        "model": model,
        "input": _described(job.source.spec),
        "rows of the input": job.total_rows,
        "files of the input": job.identity_of(),
        **settings,
    }


def check_same(
    before: dict[str, Any], now: dict[str, Any], journal: pathlib.Path
) -> None:
    """Checks that a run is the one that a journal tells of.

    Raises:
        ValueError: It is not; names what differs.
    """
    names = sorted(before.keys() | now.keys())
    differing = [name for name in names if before.get(name) != now.get(name)]
    if not differing:
        return
    lines = "; ".join(
        f"{name}: {_short(before.get(name))} before, {_short(now.get(name))} now"
        for name in differing
    )
    raise ValueError(
        f"{journal} tells of another run, so it cannot be gone on with ({lines}). "
        "Nothing was touched. Run it as before, or pass overwrite=True to begin again."
    )


def _described(spec: Any) -> list[str]:
    return [f"{leaf.dtype.name} {[*leaf.shape]}" for leaf in tf.nest.flatten(spec)]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]}..."
