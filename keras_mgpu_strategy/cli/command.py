"""The command line `mgpu`: its commands, how they are called, and exit codes.

Guarantees:

* Bad input ends with exit code 2 and one line on standard error; a run that had begun
  and failed, with 1; one stopped by a signal, with 128 plus its number (SIGINT,
  SIGTERM) or by that signal itself (all others), for which shells report the same.
* Help is printed before TensorFlow is loaded.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn

from absl import flags

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.benchmark import command as benchmark
from keras_mgpu_strategy.cli import flags as predict_flags
from keras_mgpu_strategy.cli import merge, predict, predict_notes
from keras_mgpu_strategy.cli.call import Call
from keras_mgpu_strategy.cli.ending import EXIT_FAILED, Failed, Stopped
from keras_mgpu_strategy.cli.help import Command, help_of, overview, usage_of
from keras_mgpu_strategy.cli.printing import (
    TOLD_WELL,
    complain,
    is_of_tensorflow,
    one_line,
)
from keras_mgpu_strategy.cli.text import of_flags
from keras_mgpu_strategy.system import environment

_EXIT_BAD_INPUT = 2
_HELP = ("-h", "-help", "--help")


@dataclasses.dataclass(frozen=True)
class Invocation:
    """A command, and how the user called it."""

    command: Command
    call: Call


def parse(argv: Sequence[str]) -> Invocation:
    """Parses a command line. Handles `--help`, and ends the process on bad input.

    Args:
        argv: The command line, the program's name first.
    """
    # absl's own flags get only the program's name: its 60 flags are not ours to offer.
    # absl messages below warnings are not for our users.
    flags.FLAGS([argv[0], "--verbosity=-1"])
    name = argv[1] if len(argv) > 1 else "--help"
    if name in (*_HELP, "help"):
        _answer(overview(COMMANDS.values()))
    if name == "--version":
        _answer(f"keras_mgpu_strategy {mgpu.__version__}")
    with _exit_on_bad_input():
        return _parse_command(_find_command(name), argv)


def main(invocation: Invocation) -> None:
    """Runs a command that was read by `parse`."""
    with _exit_on_bad_input():
        invocation.command.run(invocation.call)


def _find_command(name: str) -> Command:
    if name not in COMMANDS:
        raise ValueError(
            f"unknown command {name!r}. Expected one of: {', '.join(COMMANDS)}. "
            f"See mgpu --help."
        )
    return COMMANDS[name]


def _parse_command(command: Command, argv: Sequence[str]) -> Invocation:
    rest = argv[2:]
    flag_values = flags.FlagValues()
    flag_values.set_gnu_getopt(True)
    command.define_flags(flag_values)
    if any(word in _HELP for word in rest):
        _answer(help_of(command, flag_values))
    try:
        arguments = tuple(flag_values([command.name, *rest])[1:])
    except flags.Error as error:
        told = of_flags(str(error))
        raise ValueError(f"{told} See mgpu {command.name} --help.") from error
    least, is_open = len(command.arguments), command.takes_more
    if len(arguments) < least or (len(arguments) > least and not is_open):
        raise ValueError(
            f"{command.name} takes {least} arguments{' or more' if is_open else ''} "
            f"({usage_of(command)}), got {len(arguments)}: {' '.join(arguments)!r}. "
            f"See mgpu {command.name} --help."
        )
    return Invocation(command, Call(tuple(argv), arguments, flag_values))


@contextlib.contextmanager
def _exit_on_bad_input() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # the output's reader is gone: no input is bad
        raise
    except TOLD_WELL as error:
        complain(one_line(error))
        sys.exit(_EXIT_BAD_INPUT)
    except Failed as failed:
        for line in str(failed).splitlines():
            complain(line)
        sys.exit(EXIT_FAILED)
    except Stopped as stopped:  # already reported
        stopped.end()
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(130)
    except Exception as error:
        if not (isinstance(error, MemoryError) or is_of_tensorflow(error)):
            raise  # our own bug, which needs its traceback
        complain(one_line(error))
        sys.exit(EXIT_FAILED)


def _answer(text: str) -> NoReturn:
    print(text, flush=True)
    sys.exit(0)


def _list_devices(call: Call) -> None:
    """Prints the devices that TensorFlow sees, one per line."""
    del call
    with environment.quiet_start():
        import tensorflow as tf

        physical = tf.config.list_physical_devices()
        logical = tf.config.list_logical_devices()
    for title, devices in (("physical", physical), ("logical", logical)):
        print(f"{title} devices")
        for device in devices:
            print(f"  {':'.join(device.name.split(':')[-2:])}")


COMMANDS = {
    command.name: command
    for command in (
        Command(
            name="predict",
            arguments=("MODEL", "INPUT..."),
            required=("--output=PATH",),
            summary="Runs a model over all rows of files, on every device.",
            examples=predict_notes.EXAMPLES,
            define_flags=predict_flags.define_flags,
            run=predict.run,
            notes=predict_notes.NOTES,
        ),
        Command(
            name="merge",
            arguments=("PATH",),
            required=(),
            summary="Completes an output that mgpu predict --shard=I/N wrote.",
            examples=merge.EXAMPLES,
            define_flags=lambda flag_values: None,
            run=merge.run,
            notes=merge.NOTES,
        ),
        Command(
            name="benchmark",
            arguments=(),
            required=(),
            summary="Measures prediction on several devices against other ways.",
            examples=(
                "mgpu benchmark --replicas=1,2,4 --output=results --plot",
                "mgpu benchmark --model=mlp,own.keras --batch=64 --devices=cpu",
                "mgpu benchmark --replicas_per_device=1,2,4 --model=own.keras",
            ),
            define_flags=benchmark.define_flags,
            run=lambda call: benchmark.run(call.arguments, call.flag_values),
        ),
        Command(
            name="devices",
            arguments=(),
            required=(),
            summary="Lists the devices that TensorFlow sees.",
            examples=("mgpu devices",),
            define_flags=lambda flag_values: None,
            run=_list_devices,
        ),
    )
}
