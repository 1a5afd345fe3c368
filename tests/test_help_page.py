"""The help page of a command: what it does, its usage, and its flags in groups, within the width of the terminal."""

import re

import pytest
import tyro

from melpatch.flags import Flag, flags_of
from melpatch.help_page import ESSENTIAL, GROUPS, _grouped, page
from melpatch.recipes.base import recipe
from melpatch.workflows.finetune import finetune_defaults
from melpatch.workflows.pretrain import pretrain_defaults


def flag(name, kind="INT", default=1, doc="What it is.", positional=False):
    return Flag(name, kind, default, doc, object, positional)


def test_a_short_page_is_one_list_with_the_required_flags_first():
    flags = [
        flag("sources", "TEXT...", tyro.MISSING, positional=True),
        flag("times"),
        flag("front_end.exact", "", False),
        flag("out", "PATH", tyro.MISSING),
        flag("names", "TEXT...", ("a", "b")),
        flag("limit", "INT", None),
    ]
    assert (
        page("melpatch greet", "Greet.\n\nOften.", flags, width=60)
        == """\
Greet.

Often.

usage: melpatch greet SOURCES... --out PATH [options]

Arguments:
  SOURCES                   What it is. (required)

Options:
  --out PATH                What it is. (required)
  --times INT               What it is. (default: 1)
  --front-end.[no-]exact    What it is. (default: no)
  --names TEXT...           What it is. (default: a b)
  --limit INT               What it is."""
    )


def test_a_long_page_has_the_most_used_flags_first_and_the_rest_in_groups():
    settings = recipe("ssast")("nano")
    text = page("melpatch pretrain", "Pretrain.", list(flags_of(type(settings), settings)), 100)
    headings = [line for line in text.splitlines() if line.endswith(":") and line[0].isupper()]
    assert headings[0] == "Most used options:"
    wanted = [group for group in GROUPS if group != "initial weights"]  # flags of the commands
    assert headings[1:] == [f"{group[0].upper()}{group[1:]}:" for group in wanted]
    sections = dict(zip(headings, text.split("\n\n")[2:], strict=True))
    assert "--lr FLOAT" in sections["Most used options:"]
    assert "--weight-decay FLOAT" in sections["Optimiser:"]
    assert "--objective.mask-ratio FLOAT" in sections["Objective:"]


# Words in the names of settings that do not belong among those of the training in general.
ELSEWHERE = {
    "optimiser": r"^lr|_lr|weight|optim|decay|grad|betas|average",
    "data": r"clip|label|split|fold|channel|shard|sampling|column|seconds",
    "initial weights": r"^init|resize|encoder",
}


@pytest.mark.parametrize("name", ["asit", "cola", "ssast"])
def test_each_setting_of_pretrain_is_in_a_sensible_group(name):
    defaults = pretrain_defaults(name)
    sections = _grouped(list(flags_of(type(defaults), defaults)))
    listed = [flag.name for members in sections.values() for flag in members]
    assert sorted(listed) == sorted(flag.name for flag in flags_of(type(defaults), defaults))
    for flag in sections["training"]:
        for group, words in ELSEWHERE.items():
            assert not re.search(words, flag.name), f"{flag.name} belongs to {group}"
    for table in ("front end", "encoder", "objective"):
        prefix = f"{table.replace(' ', '_')}."
        assert all(flag.name.startswith(prefix) for flag in sections.get(table, []))
        assert [name for name in listed if name.startswith(prefix)] == [
            flag.name for flag in sections.get(table, [])
        ]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_no_line_is_wider_than_the_page(width):
    settings = recipe("asit")("nano")
    text = page("melpatch pretrain", "Pretrain.", list(flags_of(type(settings), settings)), width)
    # A flag with its choices is one word.
    assert [line for line in text.splitlines() if len(line) > width and "{" not in line] == []


def test_every_setting_that_help_names_exists():
    names = {
        flag.name
        for settings in (pretrain_defaults("ssast"), finetune_defaults("scratch"))
        for flag in flags_of(type(settings), settings)
    }
    named = {*ESSENTIAL, *(name for group in GROUPS.values() for name in group)}
    assert named - names == set()
