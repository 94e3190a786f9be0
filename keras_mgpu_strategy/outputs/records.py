"""The record of a finished output: its journal, kept in a hidden file next to it.

`scores.npy` has its record in `.scores.npy.finished`. It may be moved together with the
output, and is valid as long as the output is as the run left it.
"""

import dataclasses
import hashlib
import os
import pathlib
from typing import Any

from keras_mgpu_strategy.outputs import journal as journals
from keras_mgpu_strategy.outputs.journal import Journal, Progress


def record_of(output: pathlib.Path) -> pathlib.Path:
    """Where the record of an output is."""
    return output.with_name(f".{output.name}.finished")


def state_of(output: pathlib.Path) -> int:
    """A number that distinguishes an output from any other, and from a changed one.

    From names, sizes and times alone: its content is not read.
    """
    files = sorted(output.rglob("*")) if output.is_dir() else [output]
    state = []
    for file in files:
        status = file.stat()
        if not file.is_dir():
            name = os.fsencode(file.relative_to(output))
            state.append((name, status.st_size, status.st_mtime_ns))
    return int.from_bytes(hashlib.sha256(repr(state).encode()).digest()[:7], "little")


def read_record(output: pathlib.Path) -> Journal | None:
    """The journal of the run that wrote an output; None if the output has changed.

    Also None if there is no output, or the record is damaged.
    """
    record = record_of(output)
    if not (record.is_file() and output.exists()):
        return None
    try:
        found = journals.read(record)
    except ValueError:
        return None
    progress = found.progress
    if progress is None or progress.mark.get("state") != state_of(output):
        return None
    return found


def record_content(
    about: dict[str, Any], last: Progress, output: pathlib.Path
) -> bytes:
    """Returns the record of an output that is complete.

    Args:
        about: As in its journal.
        last: Its progress, with any mark.
        output: The output, under any name.
    """
    last = dataclasses.replace(last, mark={"state": state_of(output)}, finished=True)
    return journals.content_of(about, last)
