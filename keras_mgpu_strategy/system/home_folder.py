"""`~` in paths that users give.

One rule for all of them, in Python as on the command line: a path that begins with `~`
or `~user` leads to that home folder, as in a shell, and `./~` to a file of that name.
"""

import os


def expanded(path: str | os.PathLike[str]) -> str:
    """Returns the path with the home folder in place of a leading `~`."""
    return os.path.expanduser(os.fspath(path))
