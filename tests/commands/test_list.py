"""``melpatch list``: every piece of every kind, in a table or as JSON, without importing any of them."""

import json
import subprocess
import sys
from typing import get_args

import pytest

import melpatch
from melpatch import cli, registry
from melpatch.commands.list import Kind, pieces
from melpatch.recipes.base import recipes


def test_json_holds_every_piece_of_every_kind(capsys):
    assert cli.main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == list(get_args(Kind))
    for kind in ("objectives", "encoders", "protocols", "datasets", "commands"):
        assert found[kind] == {name: registry.summary(kind, name) for name in registry.names(kind)}


def test_recipes_are_those_that_can_be_run(capsys):
    assert cli.main(["list", "recipes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipes"].keys() == recipes().keys()


def test_a_kind_shows_its_pieces_only(capsys):
    assert cli.main(["list", "encoders"]) == 0
    out = capsys.readouterr().out
    assert registry.summary("encoders", "vit") in out
    assert "commands" not in out


def test_every_piece_has_a_summary():
    empty = [
        (kind, name)
        for kind in get_args(Kind)
        for name, summary in pieces(kind).items()
        if not summary
    ]
    assert empty == []


def test_summaries_are_plain_text():
    marked = [
        (kind, name)
        for kind in get_args(Kind)
        for name, summary in pieces(kind).items()
        if "`" in summary
    ]
    assert marked == []


def test_recipes_are_the_public_functions_of_their_files(tmp_path, monkeypatch):
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "birds.py").write_text(
        '"""Birds."""\nimport nothing\ndef warbler():\n    """Warblers.\n\n    More.\n    """\ndef _private(): ...\n'
    )
    monkeypatch.setattr(registry, "_ROOT", tmp_path)
    monkeypatch.setattr(melpatch, "__file__", str(tmp_path / "__init__.py"))
    assert pieces("recipes") == {"warbler": "Warblers."}


def test_an_unknown_kind_is_exit_code_2_and_names_the_kinds(capsys):
    assert cli.main(["list", "objective"]) == 2
    assert "'objectives'" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"]])
def test_listing_imports_no_torch(arguments):
    code = f"import sys; from melpatch.cli import main; main({arguments}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "False", done.stderr
