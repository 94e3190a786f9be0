"""Entry point of `mgpu` and of `python -m keras_mgpu_strategy`."""

import io
import sys

from absl import app

from keras_mgpu_strategy.cli import command
from keras_mgpu_strategy.cli.ending import EXIT_BROKEN_PIPE, EXIT_FAILED
from keras_mgpu_strategy.cli.printing import complain, discard, open_streams


def run() -> None:
    """Reads the command line and runs it."""
    open_streams()
    stdout = sys.stdout
    # A path may have bytes that are not text, or characters that the stream lacks.
    if isinstance(stdout, io.TextIOWrapper) and stdout.errors == "strict":
        stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            app.run(command.main, flags_parser=command.parse)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:  # `mgpu --help | head` has read enough
        discard(stdout)
        sys.exit(EXIT_BROKEN_PIPE)
    except OSError as error:
        discard(stdout)
        complain(f"the standard output cannot be written: {error}. Send it elsewhere.")
        sys.exit(EXIT_FAILED)


if __name__ == "__main__":
    run()
