"""``melpatch list``: every piece of every kind, in a table or as JSON, without importing any of them."""

import json
import subprocess
import sys

import pytest

from melpatch import cli, registry
from melpatch.recipes.base import recipes


def test_json_holds_every_piece_of_every_kind(capsys):
    assert cli.main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert tuple(listed) == registry.KINDS
    for kind in set(registry.KINDS) - {"recipes"}:
        assert listed[kind] == {
            name: {"summary": registry.summary(kind, name), "origin": "melpatch"}
            for name in registry.names(kind)
        }


def test_recipes_are_those_that_can_be_run(capsys):
    assert cli.main(["list", "recipes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipes"].keys() == recipes().keys()


def test_a_kind_shows_its_pieces_only(capsys):
    assert cli.main(["list", "encoders"]) == 0
    out = capsys.readouterr().out
    assert registry.summary("encoders", "vit") in out
    assert "commands" not in out
    assert "(melpatch)" not in out


@pytest.mark.usefixtures("birds")
def test_pieces_of_installed_packages_are_listed_with_their_origin(capsys):
    assert cli.main(["list", "objectives"]) == 0
    out = capsys.readouterr().out
    assert "Warblers sing." in out
    assert "(birds 1.2)" in out


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_summary_is_there_and_plain_text(kind):
    wrong = [
        name
        for name, piece in registry.pieces(kind).items()
        if not piece.summary or "`" in piece.summary
    ]
    assert wrong == []


def test_families_of_weights_say_what_they_need_and_their_licence(capsys):
    assert cli.main(["list", "weights"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Audio-MAE" in shown
    assert "CC BY-NC 4.0" in shown
    assert cli.main(["list", "weights", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["weights"]
    assert listed.keys() == set(registry.names("interop"))
    assert listed["maskspec"]["encoder"] == "vit"
    assert listed["maskspec"]["classifier"] == "left out"
    assert listed["panns"]["classifier"] == "read by melpatch import"
    for facts in listed.values():
        assert all(facts[name] for name in ("family", "files", "needs", "licence"))


def test_an_unknown_kind_is_exit_code_2_and_names_the_kinds(capsys):
    assert cli.main(["list", "objective"]) == 2
    assert "allowed: objectives, encoders" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"]])
def test_listing_imports_no_torch(arguments):
    code = f"import sys; from melpatch.cli import main; main({arguments}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "False", done.stderr
