"""From the words of a command line to a configuration, or to the help of the command."""

import difflib
import sys
from collections.abc import Sequence
from typing import TypeVar

import tyro

from melpatch.errors import ConfigError
from melpatch.flags import Flag, flags_of
from melpatch.help_page import page
from melpatch.placeholders import is_placeholder

T = TypeVar("T")
_HELP = {"-h", "--help"}


def wants_help(arguments: Sequence[str]) -> bool:
    """Return whether the help of a command is asked for."""
    return not _HELP.isdisjoint(arguments)


def read_config(
    kind: type[T], arguments: Sequence[str], *, prog: str, about: str, default: T | None = None
) -> T:
    """Return the configuration that arguments spell; with ``--help`` among them, show the help and exit.

    Args:
        kind: a dataclass.
        arguments: the words after the command.
        prog: the command, as it is typed.
        about: what the help says first.
        default: values of what is not given, ``tyro.MISSING`` where it has to be; without, those of
            the fields.

    Raises:
        ConfigError: a flag is unknown, or a setting out of range.
        SystemExit: the help is shown (code 0), or a value cannot be read (code 2).
    """
    flags = list(flags_of(kind, default))
    if any(is_placeholder(flag.default) for flag in flags):
        raise RuntimeError("a default was computed with a library that is replaced for the help")
    if wants_help(arguments):
        sys.stdout.write(page(prog, about, flags) + "\n")
        raise SystemExit(0)
    _refuse_unknown(flags, arguments, prog)
    start = tyro.MISSING_NONPROP if default is None else default
    return tyro.cli(kind, default=start, args=arguments, prog=prog, description=about)


def _refuse_unknown(flags: Sequence[Flag], arguments: Sequence[str], prog: str) -> None:
    """Raise a ConfigError for the first flag that does not exist, with those that are spelled alike."""
    known = {flag.spelled for flag in flags}
    for flag in flags:
        if flag.is_switch:
            # The opposite of --a.b is --a.no-b.
            table, dot, name = flag.spelled.removeprefix("--").rpartition(".")
            known.add(f"--{table}{dot}no-{name}")
    for word in arguments:
        if word == "--":
            return
        name = word.partition("=")[0].replace("_", "-")
        if not name.startswith("--") or " " in name or name in known:
            continue
        close = difflib.get_close_matches(name, known, n=2)
        advice = f"did you mean {' or '.join(close)}?" if close else f"'{prog} --help' lists them"
        raise ConfigError(f"unknown flag {word.partition('=')[0]}; {advice}")
