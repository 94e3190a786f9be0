"""Distinguishes the content of files from other content of the same names and sizes.

Guarantees:

* Files of up to 256 MiB in total are read as a whole. Of larger ones, evenly spread
  samples are read, and their modification times count.
* A file that cannot be read counts as empty.
"""

import bisect
import contextlib
import datetime
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from keras_mgpu_strategy.digests.samples import is_large, sample_places
from keras_mgpu_strategy.types import Origin

_PIECE_BYTES = 2**20


def origin_of_files(
    files: Sequence[str | os.PathLike[str]], about: dict[str, Any]
) -> Origin:
    """Identifies rows by the files that they are read from.

    Args:
        files: In the order in which they are read.
        about: What else identifies them.
    """
    contents = Contents(files)
    if not is_large(contents.num_bytes):
        return Origin({**about, "content of the files": contents.digest()})
    about = {**about, "content of the files": contents.sampled()}
    return Origin(about, contents.times(), contents.digest)


class Contents:
    """The content of files, with their sizes at the time of creation.

    Args:
        files: In the order in which they are read.

    Attributes:
        num_bytes: Size of all files together.
    """

    def __init__(self, files: Sequence[str | os.PathLike[str]]) -> None:
        status = [_status(file) for file in files]
        self._files = files
        self._sizes = [size for size, _ in status]
        self._times = [time for _, time in status]
        self.num_bytes = sum(self._sizes)

    def digest(self, is_wanted: Callable[[], bool] = lambda: True) -> str | None:
        """Returns a digest of all content; None once it is no longer wanted."""
        sha = self._begun()
        for file in self._files:
            for piece in _pieces(file):
                if not is_wanted():
                    return None
                sha.update(piece)
        return f"sha256 {sha.hexdigest()[:32]}"

    def sampled(self) -> str:
        """Returns a digest of samples of the content."""
        sha = self._begun()
        ends = list(itertools.accumulate(self._sizes))
        for start, stop in sample_places(self.num_bytes):
            index = bisect.bisect_right(ends, start)
            offset = start - (ends[index] - self._sizes[index])
            sha.update(_read(self._files[index], offset, stop - start))
        return f"samples, sha256 {sha.hexdigest()[:32]}"

    def times(self) -> str:
        """Returns when the files were changed."""
        seconds, nanoseconds = divmod(max(self._times), 10**9)
        newest = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
        text = f"{newest:%Y-%m-%d %H:%M:%S}.{nanoseconds:09d}"
        if len(self._times) == 1:
            return text
        digest = hashlib.sha256(repr(self._times).encode()).hexdigest()
        return f"{text} and before, sha256 {digest[:16]}"

    def _begun(self) -> Any:
        return hashlib.sha256(repr(self._sizes).encode())


def _status(file: str | os.PathLike[str]) -> tuple[int, int]:
    try:
        status = os.stat(file)
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _pieces(file: str | os.PathLike[str]) -> Iterator[bytes]:
    with contextlib.suppress(OSError), open(file, "rb", buffering=0) as opened:
        while piece := opened.read(_PIECE_BYTES):
            yield piece


def _read(file: str | os.PathLike[str], offset: int, num_bytes: int) -> bytes:
    with contextlib.suppress(OSError), open(file, "rb") as opened:
        opened.seek(offset)
        return opened.read(num_bytes)
    return b""
