"""Where a run into a file goes, what it continues, and what it depends on."""

import os
import pathlib
from typing import Any

import numpy as np

from keras_mgpu_strategy.compute.heads import Head
from keras_mgpu_strategy.compute.sizes import per_replica
from keras_mgpu_strategy.formats.registry import output_format, writer_of
from keras_mgpu_strategy.outputs.interface import Column, Layout
from keras_mgpu_strategy.outputs.journal import Journal
from keras_mgpu_strategy.outputs.shards import shard_of
from keras_mgpu_strategy.outputs.target import Target
from keras_mgpu_strategy.runs.asked_columns import kept_settings
from keras_mgpu_strategy.runs.run import Run, Runner
from keras_mgpu_strategy.system.environment import expanded

_RAGGED = Column("output", (None,), np.dtype(np.float32))
"""Stands for results that differ in length, before any of them is known."""


def target_of(
    path: str | os.PathLike[str],
    shard: tuple[int, int] | None,
    *,
    resume: bool,
    overwrite: bool,
) -> tuple[Target, Journal | None]:
    """Where the output goes, checked before any row is run, and what to resume."""
    place, own = pathlib.Path(expanded(path)), shard_of(shard)
    writer_of(place).check(Layout(columns=()))
    target = Target(place, own, is_shared=output_format(place).is_shared)
    target.check(resume=resume, overwrite=overwrite)
    return target, (target.finished() or target.begun()) if resume else None


def resumed(
    journal: Journal | None, runner: Runner, head: Head, rows: dict[str, Any]
) -> Run:
    """Prepares a run, which has the batch and step of the earlier one if any."""
    before, choices = journal and journal.progress, runner.backend.choices
    step: Any = None
    if journal is not None and before is not None:
        # With steps, a batch size would also determine how many rows there are.
        if all(rows[name] is None for name in ("batch_size", "steps", "pad")):
            size = before.batch_size * runner.num_replicas
            rows = {**rows, "batch_size": size}
        step = None if before.finished else before.step
        if step not in (None, *choices):
            raise ValueError(
                f"{journal.path} cannot be resumed: its rows were computed with "
                f"compile={step!r}, and those to come would be with compile="
                f"{choices[0]!r}, which rounds differently. Nothing was touched. Pass "
                f"compile={step!r}, or overwrite=True to begin again."
            )
    return runner.prepare(head=head, step=step, **rows)


def settings_of(
    run: Run,
    runner: Runner,
    head: Head,
    target: Target,
    names: tuple[str, ...],
    steps: int | None,
    batch_size: int | None,
) -> dict[str, Any]:
    """What must be the same for a run to be resumed; refuses what no file can hold."""
    shard, replicas, backend = target.shard, runner.num_replicas, runner.backend
    options = backend.options
    settings = {
        "model": backend.digest(),
        "method": head.method,
        "from_logits": head.from_logits,
        "steps": steps,
        "format": target.path.suffix.lower(),
        "shard": shard and [shard.index, shard.count],
        "per-replica batch": batch_size and per_replica(batch_size, replicas),
    }
    # Earlier versions did not have these.
    outputs = options.output_names and [*options.output_names]
    given = {"outputs": outputs, "k": head.k, "output dtype": options.output_dtype}
    given |= {"combine": options.combine, "views": options.described_views}
    settings |= {name: value for name, value in given.items() if value is not None}
    if run.padded is not None:
        if run.padded.is_ragged:
            writer_of(target.path).check(Layout(columns=(_RAGGED,)))
        settings |= run.padded.settings
    return settings | kept_settings(run, runner, head, names, target.path)
