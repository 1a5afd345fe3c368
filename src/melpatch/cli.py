"""The ``melpatch`` command line: find a command in ``commands/``, read its configuration, run it.

Nothing heavy is imported before the command is known, and no torch to show help.
"""

import difflib
import importlib
import inspect
import os
import sys
import textwrap
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

import melpatch
from melpatch import registry
from melpatch.errors import (
    ConfigError,
    Interrupted,
    MelpatchError,
    SettingError,
    one_line,
    report_lost_workers,
)
from melpatch.faults import machine_fault
from melpatch.interruption import signals_raised

_SUCCESS = 0
_DEFECT = 1
_USER_ERROR = 2
_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
_BROKEN_PIPE = 141  # 128 + SIGPIPE
_HELP_FLAGS = {"-h", "--help"}


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit code.

    It is 0 after success, 2 for what the user can put right and 1 for a defect of melpatch.

    Args:
        arguments: the words after ``melpatch``; by default those of this process. ``--debug``
            anywhere among them lets every exception through with its traceback.
    """
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    _open_missing_streams()
    try:
        # Under torchrun, signals are between it and its processes.
        heeded = nullcontext() if _is_distributed() else signals_raised()
        with report_lost_workers(), heeded:
            _run(words)
        sys.stdout.flush()
        return _SUCCESS
    except SystemExit as end:  # help was shown
        return end.code if isinstance(end.code, int) else _SUCCESS
    except (Exception, KeyboardInterrupt, Interrupted) as error:
        if (
            _is_distributed()
            and not importlib.import_module("melpatch.distributed").first_to_fail()
        ):
            return _DEFECT  # the process that failed first reports the error
        if debug:
            raise
        return _report(error, words)


def _open_missing_streams() -> None:
    """Give this process the standard streams that it was started without.

    Otherwise the next file that is opened takes the number of one of them, and what a library
    prints ends up in it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
        # Names from files may hold letters that the terminal's encoding lacks.
        elif mode == "w" and hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def parse(command: str, arguments: list[str]) -> tuple[ModuleType, Any]:
    """Return the module of a command and the configuration that the arguments spell.

    A command holds a ``Config`` and ``run(config)``. Where defaults depend on the arguments, such
    as on the recipe, it also holds ``parse(arguments)``. ``TOGETHER = True`` says that the
    processes of torchrun share its work.

    Raises:
        ConfigError: no command has that name, or a flag or its value is wrong.
        SystemExit: the help was shown (code 0).
    """
    if not _HELP_FLAGS.isdisjoint(arguments):
        _show_help_without_torch(command, arguments)
    return _parse(command, arguments)


def _parse(command: str, arguments: list[str]) -> tuple[ModuleType, Any]:
    module = _command(command)
    if hasattr(module, "parse"):
        return module, module.parse(arguments)
    from melpatch.arguments import read_config  # not above: melpatch --help does without tyro

    about = inspect.getdoc(module) or ""
    return module, read_config(module.Config, arguments, prog=f"melpatch {command}", about=about)


def _show_help_without_torch(command: str, arguments: list[str]) -> None:
    """Show the help of a command and exit; return where that takes the heavy libraries."""
    from melpatch.placeholders import heavy_libraries_replaced

    if any(
        ":" in word for word in [command, *arguments]
    ):  # code of one's own, which may do anything
        return
    try:
        with heavy_libraries_replaced():
            _parse(command, arguments)
    except Exception:  # noqa: BLE001 - whatever it is, it is raised again with the real libraries
        return


def _command(name: str) -> ModuleType:
    """Return the module of a command.

    Raises:
        ConfigError: there is none of that name.
    """
    if ":" in name or registry.is_installed("commands", name):
        return registry.find("commands", name)  # type: ignore[no-any-return]
    known = [command.replace("_", "-") for command in registry.all_names("commands")]
    if name not in known:
        close = difflib.get_close_matches(name, known)
        advice = "'melpatch --help' lists them"
        if close:
            advice = f"did you mean {' or '.join(close)}?"
        raise ConfigError(f"no command is called {name!r}; {advice}")
    return importlib.import_module(f"melpatch.commands.{name.replace('-', '_')}")


def _run(words: list[str]) -> None:
    if not words or words[0] in _HELP_FLAGS:
        sys.stdout.write(_help() + "\n")
    elif words[0] == "--version":
        sys.stdout.write(f"melpatch {melpatch.__version__}\n")
    elif _is_distributed():
        _run_distributed(words[0], words[1:])
    else:
        module, config = parse(words[0], words[1:])
        module.run(config)


def _is_distributed() -> bool:
    """Return whether torchrun started this process beside others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _run_distributed(command: str, arguments: list[str]) -> None:
    """Run a command as one of several processes; only rank 0 writes to stdout and stderr."""
    # Otherwise torch warns of settings that are as they have to be.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from melpatch import distributed  # not above: it imports torch

    with ExitStack() as stack:
        stack.enter_context(distributed.process_group())
        if not distributed.is_rank_zero():
            silence = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
            stack.enter_context(redirect_stdout(silence))
            stack.enter_context(redirect_stderr(silence))
        module, config = parse(command, arguments)
        if not getattr(module, "TOGETHER", False):
            raise ConfigError(
                f"melpatch {command} runs in one process only; start it without torchrun"
            )
        module.run(config)


def _summaries() -> dict[str, str]:
    """Return the one-line summary of every command by its name as it is typed."""
    return {
        name.replace("_", "-"): piece.summary
        for name, piece in sorted(registry.pieces("commands").items())
    }


def _help() -> str:
    summaries = _summaries()
    width = max(map(len, summaries), default=0)
    about = textwrap.fill(" ".join((inspect.getdoc(melpatch) or "").split()), 100)
    return "\n".join(
        [
            about,
            "\nusage: melpatch COMMAND [options]\n",
            *(f"  {name:{width}}  {summary}" for name, summary in summaries.items()),
            "\n'melpatch COMMAND --help' shows the options of a command, 'melpatch list' what there is",
            "to choose from. '--debug' shows the traceback of an error, '--version' the version.",
        ]
    )


def _report(error: BaseException, words: Sequence[str]) -> int:
    """Write one line to stderr about what ended a command, and return the exit code."""
    text = " ".join(str(error).splitlines())
    match error:
        case BrokenPipeError():
            _abandon(sys.stdout)
            return _BROKEN_PIPE
        case KeyboardInterrupt():
            line = "interrupted"
            code = _INTERRUPTED
        case Interrupted():
            line = text
            code = 128 + error.signal  # as shells report signals
        case SettingError():
            line = f"error: {_as_typed(error, words) or text}"
            code = _USER_ERROR
        case MelpatchError():
            line = f"error: {text}"
            code = _USER_ERROR
        case _ if (fault := machine_fault(error)) is not None:
            line = f"error: {fault}"
            code = _USER_ERROR
        case OSError() if error.filename is not None:  # a folder where a file should be
            line = f"error: {error.filename}: {error.strerror}"
            code = _USER_ERROR
        case _:
            defect = f"{type(error).__name__}: {text}".removesuffix(": ")
            line = f"{defect}; this is a defect; run again with --debug for the traceback"
            code = _DEFECT
    try:
        sys.stderr.write(one_line(f"{' '.join(['melpatch', *words[:1]])}: {line}") + "\n")
        sys.stderr.flush()
    except OSError:
        _abandon(sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        _abandon(sys.stdout)
    return code


def _abandon(stream: TextIO) -> None:
    """Discard what a stream still holds, so that Python does not fail on it at shutdown.

    Its reader, such as head, has gone, or there is no room for what it wrote.
    """
    # A stream in memory, as in a test, has no number.
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _as_typed(error: SettingError, words: Sequence[str]) -> str | None:
    """Return the message of an error with the flag as the user typed it; None where no flag was."""
    wanted = error.field.removeprefix("--").replace("_", "-").rpartition(".")[2]
    for word in words[1:]:
        flag = word.partition("=")[0]
        name = flag.removeprefix("--").replace("_", "-").rpartition(".")[2]
        if flag.startswith("--") and name in {wanted, f"no-{wanted}"}:
            return f"{flag} {error.shown}; allowed: {error.allowed}"
    return None
