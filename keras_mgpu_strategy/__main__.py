"""Entry point of `mgpu` and of `python -m keras_mgpu_strategy`."""

import io
import sys

from absl import app

from keras_mgpu_strategy.cli import command
from keras_mgpu_strategy.cli.ending import EXIT_FAILED
from keras_mgpu_strategy.cli.printing import complain, discard, open_streams

_EXIT_NOBODY_READS = 141


def run() -> None:
    """Reads the command line and runs it."""
    open_streams()
    stdout = sys.stdout
    # A path may have bytes that are not text, or characters that the stream lacks.
    if isinstance(stdout, io.TextIOWrapper) and stdout.errors == "strict":
        stdout.reconfigure(errors="backslashreplace")
    try:
        _run_and_flush()
    except BrokenPipeError:  # `mgpu --help | head` has read enough
        discard(stdout)
        sys.exit(_EXIT_NOBODY_READS)
    except OSError as error:
        discard(stdout)
        complain(f"the standard output cannot be written: {error}. Send it elsewhere.")
        sys.exit(EXIT_FAILED)


def _run_and_flush() -> None:
    try:
        app.run(command.main, flags_parser=command.parse)
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()


if __name__ == "__main__":
    run()
