"""What a command is, and how its help reads."""

import dataclasses
import textwrap
from collections.abc import Callable, Collection

from absl import flags

from keras_mgpu_strategy.cli.call import Call


@dataclasses.dataclass(frozen=True)
class Command:
    """One word after `mgpu`.

    Args:
        name: The word.
        arguments: Names of the positional arguments, in order; the last one may end
            with "..." for more of its kind.
        required: Flags that must be given, as they are written.
        summary: One line for people.
        examples: Shell lines that work.
        define_flags: Adds the command's flags.
        run: Does the work.
        notes: Paragraphs of help after the flags, each with a title.
    """

    name: str
    arguments: tuple[str, ...]
    required: tuple[str, ...]
    summary: str
    examples: tuple[str, ...]
    define_flags: Callable[[flags.FlagValues], None]
    run: Callable[[Call], None]
    notes: tuple[tuple[str, str], ...] = ()

    @property
    def takes_more(self) -> bool:
        """Whether the last argument may be repeated."""
        return bool(self.arguments) and self.arguments[-1].endswith("...")


def overview(commands: Collection[Command]) -> str:
    """What `mgpu --help` prints."""
    width = max(len(command.name) for command in commands)
    lines = [f"  {command.name:{width}}  {command.summary}" for command in commands]
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


def usage_of(command: Command) -> str:
    """How a command is written, without the optional flags."""
    return " ".join(["mgpu", command.name, *command.arguments, *command.required])


def help_of(command: Command, flag_values: flags.FlagValues) -> str:
    """What `mgpu COMMAND --help` prints."""
    described = [_describe(flag_values[name]) for name in flag_values]
    lines = [f"Usage: {usage_of(command)}", "", command.summary]
    if described:
        lines[0] += " [FLAGS]"
        lines += ["", "Flags:", *described]
    for title, text in command.notes:
        lines += ["", f"{title}:", _indented(text, 2)]
    return "\n".join(
        [*lines, "", "Examples:", *(f"  {e}".rstrip() for e in command.examples)]
    )


def _describe(flag: flags.Flag) -> str:
    # As in absl for an enum, help begins with the allowed values, in <>.
    value, _, text = (flag.help or "").rpartition(">: ")
    # A flag that is on by default is listed by the name that turns it off.
    name = f"no{flag.name}" if flag.boolean and flag.default is True else flag.name
    head = f"  --{name}" + (f"={value[1:]}" if value else "")
    return f"{head}\n{_indented(text, 6)}"


def _indented(text: str, width: int) -> str:
    space = " " * width
    return textwrap.fill(text, 79, initial_indent=space, subsequent_indent=space)
