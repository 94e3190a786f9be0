"""One writer for each output: a lock on its journal, which ends with the process.

Guarantee: of two runs that write the same output at the same time, on one machine or
over a file system that shares locks, the second ends before it touches anything.
Where the system has no such locks (Windows, some network file systems), nothing is
locked.
"""

import pathlib
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class Lock:
    """A lock on a file that may not be there yet, held until it is let go.

    Args:
        path: The file.
    """

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._file: BinaryIO | None = None

    def take(self) -> None:
        """Locks the file that is there now; without one, there is nothing to lock.

        Raises:
            BlockingIOError: Another run holds it.
        """
        self.release()
        if fcntl is None or not self._path.is_file():
            return
        self._file = open(self._path, "rb")  # noqa: SIM115
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise BlockingIOError(
                f"{self._path} is in use: another run is writing this output. Wait "
                "until it has ended, or give another path."
            ) from None
        except OSError:  # a file system without locks
            self.release()

    def release(self) -> None:
        """Lets the file go; calling it twice is harmless."""
        if self._file is not None:
            self._file.close()
            self._file = None
