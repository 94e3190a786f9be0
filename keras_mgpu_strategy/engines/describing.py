"""A model on its devices in one line, for a person."""

import dataclasses
from collections.abc import Sequence

from keras_mgpu_strategy.devices.names import short_name
from keras_mgpu_strategy.engines.options import Options

_MOST_SHOWN = 4


def described(
    names: Sequence[str],
    dtypes: Sequence[str],
    devices: Sequence[str],
    options: Options,
) -> str:
    """Such as "'digits', 2 replicas: GPU:0, GPU:1; threads, float32".

    `dtypes` are those of the floats that are computed with. Options that are not the
    defaults follow.
    """
    options = dataclasses.replace(options, combine=options.combination(len(names)))
    kind = "process" if options.engine == "ray" else "replica"
    ending = "es" if kind == "process" else "s"
    number = f"{len(devices)} {kind}{ending if len(devices) != 1 else ''}"
    listed = _listed(list(map(short_name, devices)))
    where = f"{number}: {listed}" if devices else number
    chosen = [
        f"{field.name}={getattr(options, field.name)!r:.60}"
        for field in dataclasses.fields(options)
        if field.name not in ("engine", "precision")
        and getattr(options, field.name) != field.default
    ]
    how = [options.engine, *([" and ".join(dtypes)] if dtypes else []), *chosen]
    return f"{_listed(list(map(repr, names)))}, {where}; {', '.join(how)}"


def _listed(names: Sequence[str]) -> str:
    if len(names) > _MOST_SHOWN:
        names = [*names[:2], "...", names[-1]]
    return ", ".join(names)
