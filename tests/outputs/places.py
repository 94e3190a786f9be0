"""What runs and kills leave next to an output, for tests of where outputs are."""

import json
import os
import pathlib
import zlib

from keras_mgpu_strategy.outputs import journal, target
from keras_mgpu_strategy.outputs.journal import Progress

FINISHED = Progress(9, 8, 4, {}, finished=True)


class Stopped(BaseException):
    """Stands for the end of a process."""


def begin(place, *, finished=False):
    """Leaves a journal, as a run that was stopped does."""
    written = journal.create(place.journal, {"run": {}, "layout": []})
    written.add(FINISHED if finished else Progress(5, 4, 4, {"rows": 5}))
    written.close()


def line(record):
    """A line of a journal with its checksum, from bytes or a value for JSON."""
    text = record if isinstance(record, bytes) else json.dumps(record).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def put(path, content):
    """Writes a file, or a folder with such files, of some content."""
    if path.suffix == ".parquet" or path.name.endswith(".parquet.partial"):
        path.mkdir()
        (path / "part-00000.parquet").write_text(content)
        (path / content).write_text(content)
    else:
        path.write_text(content)


def tree(folder):
    """Everything in a folder: relative path -> bytes, or None for a folder."""
    return {
        path.relative_to(folder).as_posix(): None
        if path.is_dir()
        else path.read_bytes()
        for path in folder.rglob("*")
    }


def stopping(monkeypatch, count):
    """Lets `count` changes of the disk succeed; later ones raise `Stopped`."""
    state = {"left": count}

    def limited(real):
        def call(*arguments, **options):
            if state["left"] == 0:
                raise Stopped
            state["left"] -= 1
            return real(*arguments, **options)

        return call

    monkeypatch.setattr(target.os, "replace", limited(os.replace))
    monkeypatch.setattr(target, "remove", limited(target.remove))
    monkeypatch.setattr(target, "sync_folder", limited(target.sync_folder))
    monkeypatch.setattr(pathlib.Path, "unlink", limited(pathlib.Path.unlink))
