"""The command line `mgpu`: commands, their flags, help and exit codes.

Guarantees:

* Bad input ends with exit code 2 and one line on the standard error stream.
* Help is answered before TensorFlow is loaded.
"""

import contextlib
import dataclasses
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from absl import flags

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy import cli_predict, environment
from keras_mgpu_strategy.benchmark import command as cli_benchmark

_EXIT_BAD_INPUT = 2
_HELP = ("-h", "-help", "--help")


@dataclasses.dataclass(frozen=True)
class Command:
    """One word after `mgpu`.

    Args:
        name: The word.
        arguments: Names of the positional arguments, in order.
        required: Flags that must be given, as they are written.
        summary: One line for people.
        examples: Shell lines that work.
        define_flags: Adds the command's flags.
        run: Does the work, given the positional arguments and the flags.
    """

    name: str
    arguments: tuple[str, ...]
    required: tuple[str, ...]
    summary: str
    examples: tuple[str, ...]
    define_flags: Callable[[flags.FlagValues], None]
    run: Callable[[Sequence[str], flags.FlagValues], None]


@dataclasses.dataclass(frozen=True)
class Invocation:
    """A command with its arguments and flags as the user gave them."""

    command: Command
    arguments: tuple[str, ...]
    flag_values: flags.FlagValues


def parse(argv: Sequence[str]) -> Invocation:
    """Reads a command line. Answers `--help` and ends the process on bad input.

    Args:
        argv: The command line, the program's name first.
    """
    # Nothing but the program's name goes to absl's own flags: its 60 flags are not
    # ours to offer. Messages of absl below a warning are not for our users.
    flags.FLAGS([argv[0], "--verbosity=-1"])
    name = argv[1] if len(argv) > 1 else "--help"
    if name in (*_HELP, "help"):
        _answer(_overview())
    if name == "--version":
        _answer(f"keras_mgpu_strategy {mgpu.__version__}")
    with _exit_on_bad_input():
        return _parse_command(_find_command(name), argv[2:])


def main(invocation: Invocation) -> None:
    """Runs a command that was read by `parse`."""
    with _exit_on_bad_input():
        invocation.command.run(invocation.arguments, invocation.flag_values)


def _find_command(name: str) -> Command:
    if name not in COMMANDS:
        raise ValueError(
            f"unknown command {name!r}. Expected one of: {', '.join(COMMANDS)}. "
            f"See mgpu --help."
        )
    return COMMANDS[name]


def _parse_command(command: Command, rest: Sequence[str]) -> Invocation:
    flag_values = flags.FlagValues()
    flag_values.set_gnu_getopt(True)
    command.define_flags(flag_values)
    if any(word in _HELP for word in rest):
        _answer(_command_help(command, flag_values))
    arguments = tuple(flag_values([command.name, *rest])[1:])
    if len(arguments) != len(command.arguments):
        raise ValueError(
            f"{command.name} takes {len(command.arguments)} arguments "
            f"({_usage(command)}), got {len(arguments)}: {' '.join(arguments)!r}. "
            f"See mgpu {command.name} --help."
        )
    return Invocation(command, arguments, flag_values)


@contextlib.contextmanager
def _exit_on_bad_input() -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, OSError, RuntimeError, flags.Error) as error:
        print("mgpu:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(_EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        print("mgpu: interrupted", file=sys.stderr)
        sys.exit(130)


def _answer(text: str) -> NoReturn:
    print(text)
    sys.exit(0)


def _overview() -> str:
    width = max(len(name) for name in COMMANDS)
    lines = [f"  {name:{width}}  {c.summary}" for name, c in COMMANDS.items()]
    return "\n".join(
        [
            "Usage: mgpu COMMAND [ARGUMENTS] [FLAGS]",
            "",
            "Exact, ordered Keras predictions on every device of this machine.",
            "",
            "Commands:",
            *lines,
            "",
            "mgpu COMMAND --help explains a command; mgpu --version tells the version.",
        ]
    )


def _usage(command: Command) -> str:
    return " ".join(["mgpu", command.name, *command.arguments, *command.required])


def _command_help(command: Command, flag_values: flags.FlagValues) -> str:
    described = [_describe(flag_values[name]) for name in flag_values]
    lines = [f"Usage: {_usage(command)}", "", command.summary]
    if described:
        lines[0] += " [FLAGS]"
        lines += ["", "Flags:", *described]
    return "\n".join([*lines, "", "Examples:", *(f"  {e}" for e in command.examples)])


def _describe(flag: flags.Flag) -> str:
    # As absl does it for an enum, help begins with what the value may be, in <>.
    value, _, text = (flag.help or "").rpartition(">: ")
    head = f"  --{flag.name}" + (f"={value[1:]}" if value else "")
    indent = " " * 6
    body = textwrap.fill(text, 79, initial_indent=indent, subsequent_indent=indent)
    return f"{head}\n{body}"


def _list_devices(arguments: Sequence[str], flag_values: flags.FlagValues) -> None:
    """Prints the devices that TensorFlow sees, one a line."""
    del arguments, flag_values
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
            arguments=("MODEL", "INPUT"),
            required=("--output=FILE.npy",),
            summary="Runs a model over the rows of a .npy file, on every device.",
            examples=(
                "mgpu predict model.keras images.npy --output=probabilities.npy",
                "mgpu predict model.keras images.npy --output=classes.npy \\",
                "    --method=predict_classes --devices=gpu:0,gpu:1 --batch_size=512",
                "mgpu predict model.keras images.npy --output=trial.npy \\",
                "    --devices=cpu --replicas_per_device=2 --labels=labels.npy",
            ),
            define_flags=cli_predict.define_flags,
            run=cli_predict.run,
        ),
        Command(
            name="benchmark",
            arguments=(),
            required=(),
            summary="Measures prediction on several devices against other ways.",
            examples=(
                "mgpu benchmark --replicas=1,2,4 --output=results --plot",
                "mgpu benchmark --model=mlp,own.keras --batch=64 --devices=cpu",
                "mgpu benchmark --simulate=8,16 --slow_factor=3",
            ),
            define_flags=cli_benchmark.define_flags,
            run=cli_benchmark.run,
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
