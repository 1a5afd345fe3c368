"""Read the words of a command line as a configuration, or show the help of the command."""

import difflib
import io
import os
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from melpatch.config import require_usable_numbers
from melpatch.errors import ConfigError
from melpatch.flags import Flag, flags_of
from melpatch.help_page import page
from melpatch.placeholders import is_placeholder

T = TypeVar("T")
_HELP = {"-h", "--help"}
# What a value looks like, for messages, by the word that the help shows for it.
_ALLOWED = {
    "INT": "a whole number",
    "FLOAT": "a number",
    "TEXT": "text",
    "PATH": "a path",
    "BOOL": "True or False",
}


def wants_help(arguments: Sequence[str]) -> bool:
    """Return whether the help of a command is asked for."""
    return not _HELP.isdisjoint(arguments)


def read_config(
    kind: type[T], arguments: Sequence[str], *, prog: str, about: str, default: T | None = None
) -> T:
    """Return the configuration of the arguments; with ``--help``, show the help and exit.

    Args:
        kind: a dataclass.
        arguments: the words after the command.
        prog: the command, as it is typed.
        about: first paragraphs of the help.
        default: defaults of all settings, ``tyro.MISSING`` for required ones; if None, the defaults
            of the fields.

    Raises:
        ConfigError: a flag is unknown or missing, or a value cannot be read or is out of range.
        SystemExit: the help is shown (code 0).
    """
    flags = list(flags_of(kind, default))
    if any(is_placeholder(flag.default) for flag in flags):
        raise RuntimeError("a default was computed with a library that is replaced for the help")
    if wants_help(arguments):
        sys.stdout.write(page(prog, about, flags) + "\n")
        raise SystemExit(0)
    _refuse_unknown(flags, arguments, prog)
    start = tyro.MISSING_NONPROP if default is None else default
    # tyro prints a box of several lines and exits; users get one line, as for every other error.
    box = io.StringIO()
    try:
        with redirect_stderr(box):
            config = tyro.cli(
                kind,
                default=start,
                args=_with_nothing_spelled(arguments, flags),
                prog=prog,
                description=about,
                registry=_registry(),
            )
    except SystemExit as end:
        if not end.code:
            raise
        raise ConfigError(_in_one_line(box.getvalue(), flags, arguments, prog)) from end
    require_usable_numbers(config)
    # Warnings that came up on the way.
    sys.stderr.write(box.getvalue())
    return config


def _with_nothing_spelled(arguments: Sequence[str], flags: Sequence[Flag]) -> list[str]:
    """Return the words with ``none`` for numbers, as help and run folders write it, as tyro's ``None``."""
    of_numbers = {
        flag.spelled for flag in flags if set(re.split(r"[ |]", flag.kind)) <= {"INT", "FLOAT"}
    }
    words = list(arguments)
    for place, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if equals and value == "none" and name.replace("_", "-") in of_numbers:
            words[place] = f"{name}=None"
        before = arguments[place - 1].replace("_", "-") if place else ""
        if word == "none" and before in of_numbers:
            words[place] = "None"
    return words


def _registry() -> ConstructorRegistry:
    """Return how values are read where tyro takes the text ``None`` for a flag that was left out.

    A fold, a split or a file may be called so.
    """
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def _text_or_nothing(about: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        if about.type == str | None:
            return _one_word(str)
        if about.type == Path | None:
            return _one_word(Path)
        return None

    return registry


def _one_word(kind: type) -> PrimitiveConstructorSpec[Any]:
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=kind.__name__.upper(),
        instance_from_str=lambda words: kind(words[0]),
        is_instance=lambda value: value is None or isinstance(value, kind),
        str_from_instance=lambda value: [str(value)],
    )


def _in_one_line(box: str, flags: Sequence[Flag], arguments: Sequence[str], prog: str) -> str:
    """Return the error that tyro has printed as a box, in one line with the allowed values."""
    help_of = f"'{prog} --help' shows what it takes"
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip(" │|") for line in box.splitlines()]
    text = " ".join(line for line in lines if line and line[0] not in "╭╰─+")
    # Without UTF-8 the frame of the box is a row of dashes.
    text = re.sub(r"\s*-{5,}\s*", " ", text).strip()
    stray = re.search(r"Unrecognized options: (.*?)(?= For full helptext|$)", text)
    if stray:
        # Path.exists raises for names that are too long.
        if stray[1].startswith("-") and os.path.exists(stray[1]):  # noqa: PTH110
            return f"{stray[1]!r} would be a flag; write './{stray[1]}' for the file of this name"
        return f"unexpected {stray[1]!r}; {help_of}"
    missing = next((flag for flag in flags if flag.required and _is_absent(flag, text)), None)
    if missing is not None:
        return f"{missing.spelled} is missing; {help_of}"
    for flag in flags:
        # A positional is named by its field, a flag as it is typed.
        name = flag.name if flag.positional else flag.spelled
        if not re.search(rf"(?:Error parsing |argument '){re.escape(name)}(?:[:']|$)", text):
            continue
        if text.startswith("Missing"):
            return f"{flag.spelled} needs a value: {_allowed(flag)}"
        return f"{flag.spelled} {_value(flag, arguments)}; allowed: {_allowed(flag)}"
    return f"{text.partition(' For full helptext')[0]}; {help_of}"


def _is_absent(flag: Flag, text: str) -> bool:
    """Return whether tyro's list of missing arguments has a flag."""
    if not text.startswith("Missing from"):
        return False
    name = flag.doc[:20] if flag.positional else f"{flag.spelled} "
    return name in text


def _value(flag: Flag, arguments: Sequence[str]) -> str:
    """Return the words that were given for a flag."""
    values: list[str] = []
    given = flag.positional
    for word in arguments:
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            given = name.replace("_", "-") == flag.spelled
            # The last occurrence of a flag counts.
            if given:
                values = [value] * bool(equals)
        elif given:
            values.append(word)
    if flag.positional and not flag.kind.endswith("..."):
        values = values[:1]
    return " ".join(values)


def _allowed(flag: Flag) -> str:
    """Return in words which values a flag takes."""
    alternatives = []
    for kind in flag.kind.split("|"):
        if kind.startswith("{"):
            alternatives.append(kind.strip("{}").replace(",", ", "))
        elif kind.endswith("..."):
            alternatives.append(f"{_ALLOWED.get(kind[:-3], kind[:-3])}, once or several times")
        elif " " in kind:
            alternatives.append(", ".join(_ALLOWED.get(part, part) for part in kind.split()))
        else:
            alternatives.append(_ALLOWED.get(kind, kind))
    return " or ".join(alternatives)


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
