"""Entry point of `mgpu` and of `python -m keras_mgpu_strategy`."""

import io
import os
import sys

from absl import app

from keras_mgpu_strategy.cli import command

_EXIT_NOBODY_READS = 141


def run() -> None:
    """Reads the command line and runs it."""
    stdout = sys.stdout
    # A path may have bytes that are no text, or characters that the stream has not.
    if isinstance(stdout, io.TextIOWrapper) and stdout.errors == "strict":
        stdout.reconfigure(errors="backslashreplace")
    try:
        app.run(command.main, flags_parser=command.parse)
    except BrokenPipeError:  # `mgpu --help | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_EXIT_NOBODY_READS)


if __name__ == "__main__":
    run()
