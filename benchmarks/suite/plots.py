"""A report as pictures; needs the `plot` extra."""

import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from keras_mgpu_strategy.benchmark import tables as stats
from keras_mgpu_strategy.system.extras import import_extra
from suite.tables import on_gpus


def save(report: dict[str, Any], folder: pathlib.Path, stem: str) -> list[pathlib.Path]:
    """Writes the pictures for which the report has numbers."""
    pyplot = load_pyplot()
    drawn = []
    settings = stats.by_setting(report["runs"])
    models = {model for _, model, *_ in settings}
    for key, runs in settings.items():
        case, model, batch, _ = key
        name = f"{stem}-{_label(model, models)}-batch{batch or 'default'}"
        drawings = {"speed": _draw_speed} if case != "memory" else {}
        if any(_shares(run) for run in runs):
            drawings["time"] = _draw_time
        if len(runs) > 1 and case == "throughput":
            drawings["scaling"] = _draw_scaling
        for kind, draw in drawings.items():
            figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
            draw(axes, runs)
            path = folder / f"{name}-{kind}.png"
            figure.savefig(path, dpi=120)
            pyplot.close(figure)
            drawn.append(path)
    return drawn


def _label(model: str, models: Iterable[str]) -> str:
    """The name of a model's file; its whole path if two files have that name."""
    path = pathlib.Path(model)
    if sum(pathlib.Path(other).stem == path.stem for other in models) == 1:
        return path.stem
    return "-".join(path.parts).strip("/.-")


def load_pyplot() -> Any:
    """Matplotlib's pyplot, drawing into files."""
    import_extra("matplotlib", "plot", "A picture").use("Agg")
    return import_extra("matplotlib.pyplot", "plot", "A picture")


def _draw_speed(axes: Any, runs: Sequence[dict[str, Any]]) -> None:
    """Bars: median rows per second by contender, one group for each replica count."""
    names = _measured(runs)
    width = 0.8 / len(runs)
    for offset, run in enumerate(runs):
        places = [index + offset * width for index in range(len(names))]
        speeds = [stats.speed(run, name) or 0 for name in names]
        axes.barh(places, speeds, width, label=_replicas(run))
    axes.set_yticks([index + 0.4 - width / 2 for index in range(len(names))], names)
    axes.invert_yaxis()
    axes.set_xlabel("rows per second, median")
    axes.set_title(_title(runs[0]))
    axes.legend()


def _draw_scaling(axes: Any, runs: Sequence[dict[str, Any]]) -> None:
    """Lines: speed-up over the fewest replicas, with the ideal."""
    counts = sorted(run["replicas"] for run in runs)
    ideal = [count / counts[0] for count in counts]
    axes.plot(counts, ideal, color="black", linestyle="--", label="ideal")
    for name in _measured(runs):
        gains = stats.speed_up(runs, name)
        axes.plot(list(gains), list(gains.values()), marker="o", label=name)
    axes.set_xticks(counts)
    axes.set_xlabel("replicas")
    axes.set_ylabel(f"speed relative to {counts[0]} replica(s)")
    axes.set_title(_title(runs[0]))
    axes.legend()


def _draw_time(axes: Any, runs: Sequence[dict[str, Any]]) -> None:
    """Stacked bars: where the replicas' time went in the last sample."""
    shares = {
        f"{name}, {_replicas(run)}": own
        for run in runs
        for name, own in _shares(run).items()
    }
    begins = [0.0] * len(shares)
    for stage in next(iter(shares.values())):
        widths = [own[stage] for own in shares.values()]
        axes.barh(list(shares), widths, left=begins, label=stage)
        begins = [begin + width for begin, width in zip(begins, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("share of the replicas' time")
    axes.set_title(_title(runs[0]))
    axes.legend()


def _shares(run: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Contender -> stage -> share, for contenders that report it."""
    records = run["contenders"].items()
    return {name: r["report"]["shares"] for name, r in records if r.get("report")}


def _replicas(run: dict[str, Any]) -> str:
    return f"{run['replicas']} replica{'' if run['replicas'] == 1 else 's'}"


def _measured(runs: Sequence[dict[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for run in runs for name in run["contenders"])
    return [name for name in names if any(stats.speed(run, name) for run in runs)]


def _title(run: dict[str, Any]) -> str:
    batch = run["per_replica_batch"]
    size = "default arguments" if batch is None else f"per-replica batch {batch}"
    return f"{run['case']}: {run['model']}, {size}{on_gpus(run)}"
