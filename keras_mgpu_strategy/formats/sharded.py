"""The shards of one output, by their journals: all there, finished, of one run."""

import dataclasses
import itertools
import pathlib
import re
import shlex
from typing import Any

from keras_mgpu_strategy.formats import registry
from keras_mgpu_strategy.outputs import journal as journals
from keras_mgpu_strategy.outputs.journal import Journal
from keras_mgpu_strategy.outputs.metric_states import Record, added
from keras_mgpu_strategy.outputs.shards import Shard
from keras_mgpu_strategy.outputs.strict_json import is_count
from keras_mgpu_strategy.outputs.target import Target
from keras_mgpu_strategy.system.messages import short

MOST_SHARDS = 100_000


@dataclasses.dataclass(frozen=True)
class Sharded:
    """An output in shards; `first` is the journal of shard 0."""

    path: pathlib.Path
    num_shards: int
    num_rows: int
    outputs: tuple[str, ...]
    has_names: bool
    first: Journal
    metrics: Record | None  # of all rows

    @property
    def shards(self) -> list[Shard]:
        """All shards, in order."""
        return [Shard(index, self.num_shards) for index in range(self.num_shards)]

    @property
    def is_shared(self) -> bool:
        """Whether the rows are already in place."""
        return not hasattr(registry.output_format(self.path).shards_module(), "join")

    def rows(self, shard: Shard) -> range:
        """The rows of a shard."""
        return shard.rows(self.num_rows, self._window)

    @property
    def _window(self) -> int | None:
        """The rows of a window, if rows were sorted by length."""
        pad = self.first.about["run"].get("pad")
        if pad is None:
            return None
        window = pad.get("window") if isinstance(pad, dict) else None
        if not is_count(window) or not window:
            raise ValueError(
                f"{self.first.path} records {pad!r:.80} as pad, expected a window of "
                "at least one row. Nothing was touched. Run all shards again with "
                "--overwrite."
            )
        return window

    def file(self, shard: Shard) -> pathlib.Path:
        """The finished file or folder of a shard, if each has one."""
        return shard.file_of(self.path)

    def damaged(self, shard: Shard, what: str) -> ValueError:
        """The error for a shard whose file does not match its journal."""
        return ValueError(
            f"Shard {shard.index} of {self.path} {what}. Nothing was touched. Run "
            f"{_command(self.path, shard, '--overwrite')}"
        )


def find_shards(path: pathlib.Path) -> Sharded:
    """Finds the journals next to an output; refuses missing or mismatched ones."""
    found = _journals(path)
    count = next(iter(found)).count
    shards = [Shard(index, count) for index in range(count)]
    _check_finished(path, shards, found)
    first = found[shards[0]]
    for shard in shards:
        _check_same(path, first, found[shard], shard)
    num_rows = first.about["run"].get("rows of the input")
    if not is_count(num_rows):
        raise ValueError(
            f"{first.path} records {num_rows!r:.40} rows of the input, expected an "
            "integer. Nothing was touched. Run all shards again with --overwrite."
        )
    layout = first.about["layout"]
    outputs = tuple(name for name, _, dtype in layout if dtype != "name")
    has_names = len(outputs) < len(layout)
    metrics = _all_metrics(path, [found[shard] for shard in shards])
    sharded = Sharded(path, count, num_rows, outputs, has_names, first, metrics)
    for shard in shards:
        _check_range(sharded, shard, found[shard])
    return sharded


def _all_metrics(path: pathlib.Path, journals: list[Journal]) -> Record | None:
    records = [run.progress.metrics for run in journals if run.progress]
    known = [record for record in records if record is not None]
    try:
        if len(known) < len(records) and known:
            raise ValueError("some have none")
        return added(known) if known else None
    except ValueError as error:
        raise ValueError(
            f"The metrics of the shards of {path} cannot be added ({error}). Nothing "
            "was touched. Run all shards again with --overwrite."
        ) from error


def _journals(path: pathlib.Path) -> dict[Shard, Journal]:
    """The journals of shards; all for the same number of shards."""
    folder = path.parent
    names = [found.name for found in folder.iterdir()] if folder.is_dir() else []
    shards = [shard for name in names if (shard := _shard_of(path, name)) is not None]
    if not shards:
        what = "It is complete, or was" if path.exists() else f"{path} was"
        raise FileNotFoundError(
            f"There are no journals of shards beside {path}, such as {path.name}."
            f"{Shard(0, 2).name}.journal. {what} not run with --shard=I/N."
        )
    counts = sorted({shard.count for shard in shards})
    if len(counts) > 1:
        raise ValueError(
            f"Beside {path} are journals of runs with {counts} shards. Expected one "
            "number of shards. Remove the journals of the others."
        )
    shards.sort(key=lambda shard: shard.index)
    return {shard: journals.read(Target(path, shard).journal) for shard in shards}


def _shard_of(path: pathlib.Path, name: str) -> Shard | None:
    """The shard whose journal a file is, by its name; None for any other file."""
    name_of = rf"{re.escape(path.name)}\.shard-([0-9]{{5,}})-of-([0-9]{{5,}})\.journal"
    match = re.fullmatch(name_of, name)
    if match is None:
        return None
    index, count = int(match[1]), int(match[2])
    is_own = index < count <= MOST_SHARDS
    if not is_own or Target(path, Shard(index, count)).journal.name != name:
        raise ValueError(
            f"{path.with_name(name)} is named like the journal of a shard that cannot "
            f"exist: expected shards 0 to N-1 of N, at most {MOST_SHARDS}. Remove it."
        )
    return Shard(index, count)


def _check_finished(
    path: pathlib.Path, shards: list[Shard], found: dict[Shard, Journal]
) -> None:
    missing = [shard for shard in shards if shard not in found]
    begun = [
        shard
        for shard, journal in found.items()
        if journal.progress is None
        or not journal.progress.finished
        or Target(path, shard).partial.exists()  # not yet put in place
    ]
    if not (missing or begun):
        return
    lacks = ", and ".join(
        f"{_numbers([shard.index for shard in some])} {what}"
        for some, what in [(missing, "not there"), (begun, "not finished")]
        if some
    )
    first = min([*missing, *begun], key=lambda shard: shard.index)
    others = "" if len([*missing, *begun]) == 1 else " and so on for the others: "
    raise FileNotFoundError(
        f"{path} lacks shards of {first.count}: {lacks}. Nothing was touched. Run"
        f"{others} {_command(path, first, '--resume')}"
    )


def _check_same(
    path: pathlib.Path, first: Journal, other: Journal, shard: Shard
) -> None:
    before, now = _described(first), _described(other)
    lines = "; ".join(
        f"{name}: {short(before.get(name))} in shard 0, "
        f"{short(now.get(name))} in shard {shard.index}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    )
    if lines:
        raise ValueError(
            f"The shards of {path} are not of the same run ({lines}). Nothing was "
            "touched. Run again those that are wrong, such as "
            f"{_command(path, shard, '--overwrite')}"
        )


def _check_range(sharded: Sharded, shard: Shard, journal: Journal) -> None:
    found = journal.about["run"].get("shard")
    if found != [shard.index, shard.count]:
        raise sharded.damaged(shard, f"has the journal of the shard {found!r:.40}")
    stop, rows = sharded.rows(shard).stop, journal.progress and journal.progress.rows
    if rows != stop:
        raise sharded.damaged(shard, f"ends at row {rows}, expected row {stop}")


def _described(journal: Journal) -> dict[str, Any]:
    # Machines may have their own copies of the input, made at other times.
    own = {"shard", "times of the files"}
    run = {name: x for name, x in journal.about["run"].items() if name not in own}
    return {**run, "outputs": journal.about["layout"]}


def _command(path: pathlib.Path, shard: Shard, flag: str) -> str:
    return (
        f"mgpu predict MODEL INPUT --output={shlex.quote(str(path))} "
        f"--shard={shard.index}/{shard.count} {flag}"
    )


def _numbers(numbers: list[int]) -> str:
    """As in "1, 4 to 7 are"."""
    runs = itertools.groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])
    ranges = [[number for _, number in run] for _, run in runs]
    named = [str(r[0]) if len(r) == 1 else f"{r[0]} to {r[-1]}" for r in ranges]
    return f"{', '.join(named)} {'is' if len(numbers) == 1 else 'are'}"
