"""The front door: ``melpatch COMMAND ...`` finds a file of ``commands/``, reads its settings and runs it.

Nothing heavy is imported before the command is known, so that ``melpatch --help`` answers at once.
"""

import difflib
import importlib
import inspect
import os
import sys
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import melpatch
from melpatch import registry
from melpatch.errors import ConfigError, Interrupted, MelpatchError, report_lost_workers

_SUCCESS, _DEFECT, _USER_ERROR, _INTERRUPTED, _BROKEN_PIPE = (
    0,
    1,
    2,
    130,
    141,
)  # the last two as shells count signals


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit code: 0, or 2 for what the user can put right, or 1 for a defect of ours.

    Args:
        arguments: the words after ``melpatch``; by default those of this process. ``--debug`` anywhere among them lets
            every exception through with its traceback.
    """
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        with report_lost_workers():
            _run(words)
        sys.stdout.flush()
        return _SUCCESS
    except SystemExit as done:  # tyro has shown its help or the wrong flag
        return done.code if isinstance(done.code, int) else _SUCCESS
    except (Exception, KeyboardInterrupt, Interrupted) as error:
        if _several() and not importlib.import_module("melpatch.distributed").first_to_fail():
            return _DEFECT  # of what another process has said already
        if debug:
            raise
        return _report(error, " ".join(["melpatch", *words[:1]]))


def parse(command: str, arguments: list[str]) -> tuple[ModuleType, Any]:
    """Return the module of a command and the configuration that the arguments spell, without running it.

    A module of which several processes share the work, if torchrun starts them, says ``TOGETHER = True``. One whose
    settings depend on the arguments themselves (on which objective, say) brings its own
    ``parse(arguments)``; for the others tyro reads their ``Config``.

    Raises:
        ConfigError: no command has that name, or a setting is out of range.
        SystemExit: tyro has shown the help (code 0) or what is wrong with the arguments (code 2).
    """
    if command not in _summaries():
        close = difflib.get_close_matches(command, _summaries())
        advice = f"did you mean {' or '.join(close)}?" if close else "'melpatch --help' lists them"
        raise ConfigError(f"no command is called {command!r}; {advice}")
    module = importlib.import_module(f"melpatch.commands.{command.replace('-', '_')}")
    if hasattr(module, "parse"):
        return module, module.parse(arguments)
    import tyro  # here, so that the help of the front door does not wait for it

    prog, description = f"melpatch {command}", inspect.getdoc(module)
    return module, tyro.cli(module.Config, args=arguments, prog=prog, description=description)


def _run(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(_help() + "\n")
    elif words[0] == "--version":
        sys.stdout.write(f"melpatch {melpatch.__version__}\n")
    elif _several():
        _run_together(words[0], words[1:])
    else:
        module, config = parse(words[0], words[1:])
        module.run(config)


def _several() -> bool:
    """Return whether torchrun started this process beside others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _run_together(command: str, arguments: list[str]) -> None:
    """Run a command as one of several processes, of which the first one alone says anything but an error."""
    os.environ.setdefault(
        "TORCH_CPP_LOG_LEVEL", "ERROR"
    )  # torch warns of settings that are as they have to be
    from melpatch import distributed  # here, since it imports torch

    with ExitStack() as stack:
        stack.enter_context(distributed.process_group())
        if not distributed.is_rank_zero():
            silence = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
            stack.enter_context(redirect_stdout(silence))
            stack.enter_context(redirect_stderr(silence))
        module, config = parse(command, arguments)
        if not getattr(module, "TOGETHER", False):
            raise ConfigError(
                f"melpatch {command} is the work of one process; start it without torchrun"
            )
        module.run(config)


def _summaries() -> dict[str, str]:
    """Return every command as it is typed, with its one line of help, read without importing it."""
    return {
        name.replace("_", "-"): registry.summary("commands", name)
        for name in registry.names("commands")
    }


def _help() -> str:
    summaries = _summaries()
    width = max(map(len, summaries), default=0)
    return "\n".join(
        [
            inspect.getdoc(melpatch) or "",
            "\nusage: melpatch COMMAND [options]\n",
            *(f"  {name:{width}}  {summary}" for name, summary in summaries.items()),
            "\n'melpatch COMMAND --help' lists the options of a command. Anywhere, '--debug' shows the traceback of an",
            "error. 'melpatch --version' tells the version.",
        ]
    )


def _report(error: BaseException, command: str) -> int:
    """Tell the user in one line of stderr what ended the command, and return the exit code."""
    text = " ".join(str(error).splitlines())
    match error:
        case BrokenPipeError():  # whoever reads us, head say, has had enough; Python must not complain at shutdown
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return _BROKEN_PIPE
        case KeyboardInterrupt():
            line, code = "interrupted", _INTERRUPTED
        case Interrupted():
            line, code = text, 128 + error.signal  # as shells count signals
        case MelpatchError():
            line, code = f"error: {text}", _USER_ERROR
        case OSError() if (
            error.filename is not None
        ):  # a full disk, a folder that may not be written
            line, code = f"error: {error.filename}: {error.strerror}", _USER_ERROR
        case _:
            defect = f"{type(error).__name__}: {text}".removesuffix(": ")
            line, code = (
                f"{defect}; this is a defect; run again with --debug for the traceback",
                _DEFECT,
            )
    sys.stderr.write(f"{command}: {line}\n")
    return code
