"""The help of a command: what it does, how it is called, and its flags, the most used ones first."""

import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from melpatch.flags import Flag

ESSENTIAL = (
    *("recipe", "data", "out", "size", "encoder", "init", "epochs", "steps", "budget"),
    *("batch_size", "seconds", "lr", "seed", "workers", "resume"),
)
"""Settings that most trainings give, in the order in which help shows them."""
GROUPS = {
    "data": (
        *(
            "split_column",
            "label_column",
            "channel",
            "group_column",
            "labels",
            "exclude_splits",
            "test_fold",
            "val_fold",
        ),
        *("labels_per_class", "stats_clips"),
    ),
    "initial weights": ("init_channels", "init_axes", "resize_positions", "encoder_from"),
    "training": (),
    "optimiser": (
        *("optimizer", "betas", "weight_decay", "weight_decay_end", "decay_all", "decay_tokens"),
        *("grad_clip", "grad_clip_by", "lr_schedule", "lr_warmup", "lr_floor", "lr_step_start"),
        *("lr_step_every", "lr_step_factor", "layer_decay", "head_lr_scale", "average_last"),
    ),
    "front end": (),
    "encoder": (),
    "objective": (),
}
"""Groups of a long page, in order, with settings that belong there whichever table declares them."""
_TABLES = {"LoaderConfig": "data", "TrainConfig": "training"}
_LONG_PAGE = 40  # flags; a shorter page shows them as one list
_WIDEST = 100
_COLUMN = 28  # where the text beside a flag begins


def page(prog: str, about: str, flags: Sequence[Flag], width: int | None = None) -> str:
    """Return the help of a command.

    Args:
        prog: the command, as it is typed.
        about: what it does: a line, and perhaps paragraphs.
        flags: its settings.
        width: columns; by default those of the terminal, at most 100.
    """
    if width is None:
        width = min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns)
    sections = [_wrapped(paragraph, width) for paragraph in about.strip().split("\n\n")]
    sections.append(_usage(prog, flags, width))
    for title, members in _grouped(flags).items():
        entries = [line for flag in members for line in _entry(flag, width)]
        sections.append("\n".join([_heading(title), *entries]))
    return "\n\n".join(sections)


def _usage(prog: str, flags: Sequence[Flag], width: int) -> str:
    words = [prog]
    for flag in flags:
        if flag.positional:
            name = f"{flag.spelled}..." if flag.kind.endswith("...") else flag.spelled
            words.append(name if flag.required else f"[{name}]")
    for flag in flags:
        if _is_required(flag) and not flag.positional:
            words.append(f"{flag.spelled} {flag.kind}")
    text = f"usage: {' '.join(words)} [options]"
    return textwrap.fill(text, width, subsequent_indent="       ", break_on_hyphens=False)


def _is_required(flag: Flag) -> bool:
    """Return whether a flag must be given; a run without data is refused once its settings are read."""
    return flag.required or (flag.name == "data" and flag.default == ())


def _grouped(flags: Sequence[Flag]) -> dict[str, list[Flag]]:
    """Return the flags of each section of the page, by its title."""
    sections: dict[str, list[Flag]] = {"arguments": [flag for flag in flags if flag.positional]}
    named = [flag for flag in flags if not flag.positional]
    if len(flags) < _LONG_PAGE:
        sections["options"] = sorted(named, key=lambda flag: not _is_required(flag))
    else:
        essential = [flag for flag in named if flag.name in ESSENTIAL]
        essential.sort(key=lambda flag: (not _is_required(flag), ESSENTIAL.index(flag.name)))
        sections["most used options"] = essential
        for group in GROUPS:
            sections[group] = [
                flag for flag in named if flag not in essential and _group(flag) == group
            ]
    return {title: members for title, members in sections.items() if members}


def _group(flag: Flag) -> str:
    table, dot, _ = flag.name.partition(".")
    if dot and table.replace("_", " ") in GROUPS:
        return table.replace("_", " ")
    for group, names in GROUPS.items():
        if flag.name in names:
            return group
    return _TABLES.get(flag.owner.__name__, "training")


def _entry(flag: Flag, width: int) -> Iterator[str]:
    """Yield the lines of one flag: how it is typed, and beside or below it what it is."""
    spelled = flag.spelled
    if flag.is_switch:
        table, dot, name = spelled.removeprefix("--").rpartition(".")
        spelled = f"--{table}{dot}[no-]{name}"
    elif not flag.positional:
        spelled = f"{spelled} {flag.kind}"
    lines = textwrap.wrap(
        f"{flag.doc} {_default(flag)}".strip(), width - _COLUMN, break_on_hyphens=False
    )
    head = f"  {spelled}"
    if len(head) + 2 > _COLUMN or not lines:
        yield head
    else:
        yield f"{head:{_COLUMN}}{lines.pop(0)}"
    for line in lines:
        yield " " * _COLUMN + line


def _default(flag: Flag) -> str:
    """Return in brackets what holds where a flag is not given."""
    if _is_required(flag):
        return "(required)"
    if flag.default is None or flag.default in ((), ""):
        return ""
    if flag.is_switch:
        return "(default: yes)" if flag.default else "(default: no)"
    return f"(default: {_shown(flag.default)})"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_shown, value))
    return str(value)


def _wrapped(paragraph: str, width: int) -> str:
    return textwrap.fill(" ".join(paragraph.split()), width, break_on_hyphens=False)


def _heading(title: str) -> str:
    text = f"{title[0].upper()}{title[1:]}:"
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        return f"\033[1m{text}\033[0m"
    return text
