"""A parsed command line, which every command is run with."""

import dataclasses
import re
import shlex
import sys
from pathlib import PurePath

from absl import flags


@dataclasses.dataclass(frozen=True)
class Call:
    """A command with its arguments and flags as the user gave them.

    Args:
        words: The whole command line, the program first.
        arguments: The positional arguments.
        flag_values: The flags, read and checked.
    """

    words: tuple[str, ...]
    arguments: tuple[str, ...]
    flag_values: flags.FlagValues

    def to_repeat(self) -> str:
        """The shell command line that runs this command again."""
        return shlex.join([*_program(self.words[0]), *self.words[1:]])

    def to_resume(self) -> str:
        """The shell command line that resumes where this command stops."""
        kept = [word for word in self.words[1:] if not _BEGINS.fullmatch(word)]
        end = kept.index("--") if "--" in kept else len(kept)
        kept.insert(end, "--resume")
        return shlex.join([*_program(self.words[0]), *kept])


_BEGINS = re.compile(r"--?(no)?(resume|overwrite)(=.*)?")


def _program(word: str) -> list[str]:
    """How to start the program again; Python may name it by its file."""
    if PurePath(word).name == "__main__.py":
        return [sys.executable, "-m", "keras_mgpu_strategy"]
    return [word]
