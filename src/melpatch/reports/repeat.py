"""The parts of a report by which others can check and repeat it: settings, versions, commands."""

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from melpatch.config import to_dict
from melpatch.markup import paragraph, table
from melpatch.opening import read_text, reading
from melpatch.reports.page import Section, code, missing
from melpatch.training.config import RunConfig
from melpatch.workflows.runs import flags_of

_ENVIRONMENT = "environment.json"


def settings_section(settings: RunConfig) -> Section:
    """Return all settings of a run, by the names of their flags."""
    rows = [[f"--{name.replace('_', '-')}", _plain(value)] for name, value in _flags(settings)]
    return Section("Settings", [table(["setting", "value"], rows)])


def _flags(settings: RunConfig) -> Iterator[tuple[str, Any]]:
    yield from flags_of(to_dict(settings)).items()


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "none"
    return "none" if value is None else str(value)


def starts_of(folder: Path) -> list[dict[str, Any]]:
    """Return the environment of each start of a run; none if they were not recorded.

    Raises:
        CheckpointError: the record is damaged.
    """
    path = folder / _ENVIRONMENT
    if not path.exists():
        return []
    with reading(path, "restore it from a backup, or delete it"):
        starts = json.loads(read_text(path))
        if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
            raise ValueError("is no list of starts")
    return starts


def repeat_section(starts: list[dict[str, Any]]) -> Section:
    """Return how to make the same again: commands, versions and machine.

    Args:
        starts: the environment of each start, the first one first.
    """
    if not starts:
        text = "Commands and versions were not recorded: the run was not made by melpatch here."
        return Section("How to repeat it", [missing(text)])
    parts = [
        paragraph("The command", " of each start" if len(starts) > 1 else "", ":"),
        code("\n".join(map(command_of, starts))),
        table([], _versions(starts[-1])),
    ]
    return Section("How to repeat it", parts)


def command_of(start: Mapping[str, Any]) -> str:
    """Return the command of a start as it is typed."""
    words = [str(word) for word in start.get("command", [])]
    if not words:
        return "(a call from Python)"
    program = words[0]
    name = Path(program).name
    if name in ("__main__.py", "melpatch"):
        return shlex.join(["melpatch", *words[1:]])
    # A script or a notebook of the user's own called melpatch.
    return shlex.join([name, *words[1:]])


def _versions(start: Mapping[str, Any]) -> Iterator[list[object]]:
    machine = start.get("machine", {})
    yield ["git commit of melpatch", start.get("git_commit") or "unknown"]
    yield ["Python", start.get("python")]
    for name, version in start.get("packages", {}).items():
        yield [name, version]
    yield ["system", machine.get("system")]
    yield ["processors", machine.get("cores")]
    yield ["threads", machine.get("threads")]
    yield ["GPU", start.get("gpu") or "none"]
