"""The commands of `mgpu`, and how they are called; help loads no TensorFlow."""

import functools
import math
import pathlib
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from absl import flags

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.benchmark import command as benchmark
from keras_mgpu_strategy.cli import help, predict, run
from keras_mgpu_strategy.cli.ending import exit_on_error
from keras_mgpu_strategy.cli.printing import of_flags, say
from keras_mgpu_strategy.merge import merge
from keras_mgpu_strategy.report import metric_lines
from keras_mgpu_strategy.system import environment
from keras_mgpu_strategy.system.environment import expanded

_HELP = ("-h", "-help", "--help")


class Command(NamedTuple):
    """One word after `mgpu`; in its help, `{flags}` is for those of `define_flags`."""

    help: str
    num_arguments: tuple[int, float]  # the fewest, and the most
    run: Callable[[Sequence[str], flags.FlagValues, Sequence[str]], None]
    define_flags: Callable[[flags.FlagValues], None] = lambda flag_values: None


def parse(argv: Sequence[str]) -> Callable[[], None]:
    """Returns what runs a command line; ends the process for help and bad input."""
    # absl's own flags get only the program's name: its 60 flags are not ours to offer.
    # absl messages below warnings are not for our users.
    flags.FLAGS([argv[0], "--verbosity=-1"])
    name = argv[1] if len(argv) > 1 else "--help"
    if name in (*_HELP, "help"):
        lines = [f"  {n:9}  {c.help.splitlines()[2]}" for n, c in COMMANDS.items()]
        _answer(help.OVERVIEW.format(commands="\n".join(lines)))
    if name == "--version":
        _answer(f"keras_mgpu_strategy {mgpu.__version__}")
    with exit_on_error():
        if name not in COMMANDS:
            raise ValueError(
                f"unknown command {name!r}. Expected one of: {', '.join(COMMANDS)}. "
                f"See mgpu --help."
            )
        return _parsed(name, COMMANDS[name], argv)


def main(command: Callable[[], None]) -> None:
    """Runs a command that was read by `parse`."""
    with exit_on_error():
        command()


def _parsed(name: str, command: Command, argv: Sequence[str]) -> Callable[[], None]:
    flag_values = flags.FlagValues()
    flag_values.set_gnu_getopt(True)
    command.define_flags(flag_values)
    if any(word in _HELP for word in argv[2:]):
        described = "\n".join(_described(flag_values[flag]) for flag in flag_values)
        _answer(command.help.replace("{flags}", described))
    try:
        arguments = flag_values([name, *argv[2:]])[1:]
    except flags.Error as error:
        raise ValueError(f"{of_flags(error)} See mgpu {name} --help.") from error
    least, most = command.num_arguments
    if not least <= len(arguments) <= most:
        raise ValueError(
            f"{name} received {' '.join(arguments)!r}, expected "
            f"{command.help.splitlines()[0].removeprefix('Usage: ')!r}. See mgpu "
            f"{name} --help."
        )
    return functools.partial(command.run, arguments, flag_values, argv)


def _described(flag: flags.Flag) -> str:
    # As in absl for an enum, help begins with the allowed values, in <>.
    value, _, text = (flag.help or "").rpartition(">: ")
    # A flag that is on by default is listed by the name that turns it off.
    name = f"no{flag.name}" if flag.boolean and flag.default is True else flag.name
    head = f"  --{name}" + (f"={value[1:]}" if value else "")
    return f"{head}\n{textwrap.indent(textwrap.fill(text, 73), ' ' * 6)}"


def _answer(text: str) -> NoReturn:
    print(text, flush=True)
    sys.exit(0)


def _merge(arguments: Sequence[str], *_: Any) -> None:
    path = pathlib.Path(expanded(arguments[0]))
    with environment.quiet_start():  # metrics need TensorFlow
        merged = merge(path)
    say(f"shards    {merged.num_shards}")
    say(f"rows      {merged.num_rows:,}")
    for line in metric_lines(merged.metrics):
        say(line)
    say(f"output    {path}")


def _list_devices(*_: Any) -> None:
    with environment.quiet_start():
        import tensorflow as tf

        physical = tf.config.list_physical_devices()
        logical = tf.config.list_logical_devices()
    for title, devices in (("physical", physical), ("logical", logical)):
        print(f"{title} devices")
        for device in devices:
            print(f"  {':'.join(device.name.split(':')[-2:])}")


COMMANDS = {
    "predict": Command(help.PREDICT, (2, math.inf), predict.predict, run.define_flags),
    "merge": Command(help.MERGE, (1, 1), _merge),
    "benchmark": Command(help.BENCHMARK, (0, 0), benchmark.run, benchmark.define_flags),
    "devices": Command(help.DEVICES, (0, 0), _list_devices),
}
