"""Labels and names that would control a terminal or be read as markup are shown as they are written."""

import json
import unicodedata

import pytest
from journeys.three_sounds import settings, write_run, write_sound, write_table

from melpatch.cli import main

LABELS = ("\x1b]0;x\x07", "[bold]", "\x9b31m", "\u202eabc")
SPEC = """
title = "{}"
[[methods]]
name = "random"
trained = false
[[budgets]]
name = "small"
sizes = ["nano"]
steps = [1]
protocols = ["knn"]
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A folder with a corpus and a classifier of such names."""
    folder = tmp_path_factory.mktemp("hostile")
    rows = []
    for number, label in enumerate(LABELS):
        name = f"\x1b[31m[bold]{number}.wav"
        write_sound(folder / name, seed=number)
        rows.append((name, label, "test"))
    write_table(folder / "corpus.csv", ("path", "label", "split"), rows)
    write_run(folder / "\x1b[31m[bold]run", settings(sorted(LABELS)))
    run = str(folder / "\x1b[31m[bold]run")
    assert main(["index", run, str(folder / "corpus.csv"), "--out", str(folder / "index")]) == 0
    (folder / "spec.toml").write_text(SPEC.format("[bold]\\u001b[31m"), encoding="utf-8")
    return folder


COMMANDS = {
    "prepare": ("prepare", "{0}/corpus.csv", "--out", "{1}/c.csv", "--workers", "0"),
    "predict": ("predict", "{0}/\x1b[31m[bold]run", "{0}/corpus.csv", "--out", "{1}/p.csv"),
    "evaluate": (
        *("evaluate", "{0}/\x1b[31m[bold]run", "--data", "{0}/corpus.csv"),
        *("--no-floors", "--out", "{1}/scores"),
    ),
    "show": ("show", "{0}/\x1b[31m[bold]run"),
    "show --json": ("show", "{0}/\x1b[31m[bold]run", "--json"),
    "pack": ("pack", "{0}/corpus.csv", "--out", "{1}/\x1b[31m[bold]", "--workers", "0"),
    "compare": (
        *("compare", "{0}/spec.toml", "--dry-run", "--data", "{0}/\x1b[31m"),
        *("--task", "[bold]\x1b[31m={0}/corpus.csv"),
    ),
    "index": ("index", "{0}/\x1b[31m[bold]run", "{0}", "--out", "{1}/\x1b[31m[bold]index"),
    "search": ("search", "{0}/index", "{0}/\x1b[31m[bold]0.wav"),
    "list": ("list", "objectives"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_that_is_printed_controls_the_terminal(name, hostile, tmp_path, capsys):
    main([word.format(hostile, tmp_path) for word in COMMANDS[name]])
    shown = capsys.readouterr()
    for text in shown:
        controls = {unicodedata.category(letter) for letter in text.replace("\n", "")}
        assert controls.isdisjoint({"Cc"}), text
        assert "\u202e" not in text, text
    if name == "show --json":
        assert set(json.loads(shown.out)["labels"].split(", ")) == set(LABELS)
    elif name == "search":
        assert r"\x1b[31m[bold]1.wav" in "".join(shown.out.split())
    elif name in {"prepare", "show"}:
        together = " ".join(shown.out.split())
        assert r"\x1b]0" in together
        assert "[bold]" in together
