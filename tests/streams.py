"""Streams that cannot be used fully, as in daemons, or on full disks."""

import contextlib
import io
import os


class OnlyWrites:
    """What programs replace a stream by, to send text elsewhere too."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text


class Raises:
    """Every method raises."""

    def __getattr__(self, name):
        raise NotImplementedError(name)


@contextlib.contextmanager
def failing(stream):
    """Closes a stream that cannot be flushed."""
    yield stream
    with contextlib.suppress(OSError):
        stream.close()


@contextlib.contextmanager
def broken_pipe():
    reading, writing = os.pipe()
    os.close(reading)
    with failing(os.fdopen(writing, "w")) as stream:
        yield stream


def closed():
    stream = io.StringIO()
    stream.close()
    return contextlib.nullcontext(stream)


@contextlib.contextmanager
def full_disk():
    with open("/dev/full", "w") as file, failing(file) as stream:
        yield stream


BROKEN = {
    "none": contextlib.nullcontext,
    "closed": closed,
    "broken pipe": broken_pipe,
    "full disk": full_disk,
    "ascii only": lambda: contextlib.nullcontext(
        io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    ),
    "no stream": lambda: contextlib.nullcontext(object()),
    "only writes": lambda: contextlib.nullcontext(OnlyWrites()),
    "raises": lambda: contextlib.nullcontext(Raises()),
}
"""Name -> a context manager that yields the stream."""
