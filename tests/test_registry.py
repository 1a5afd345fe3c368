"""The folder is the registry: files are found by name, described without being imported, and told apart from others."""

import os
import re
import sys

import pytest

from melpatch import cli, registry
from melpatch.errors import ConfigError
from melpatch.recipes.base import recipe, recipe_settings


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder ``shelf`` of pieces inside a made-up package that stands in for melpatch."""
    folder = tmp_path / "melpatch" / "shelf"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text('"""Shelf."""')
    (folder / "base.py").write_text('"""What all pieces share."""')
    (folder / "mae_ast.py").write_text(
        '"""Rebuild patches.\\n\\nMore."""\nfrom pathlib import Path\nclass MAEAST: ...\n'
    )
    (folder / "weather.py").write_text('"""Tell the weather."""\ndef weather(): ...\n')
    (folder / "odd.py").write_text("raise RuntimeError\n")
    (folder / "nothing.py").write_text('"""Nothing."""\nfrom pathlib import Path as Nothing\n')
    (folder / "named.py").write_text(
        '"""Named."""\n__registered__ = "Other"\nclass Named: ...\nclass Other: ...\n'
    )
    monkeypatch.setattr(registry, "_ROOT", folder.parent)
    import melpatch

    monkeypatch.setattr(melpatch, "__path__", [str(folder.parent)])
    yield folder
    for name in [name for name in sys.modules if name.startswith("melpatch.shelf")]:
        del sys.modules[name]


@pytest.mark.usefixtures("shelf")
def test_names_are_the_files_without_base():
    assert registry.names("shelf") == ["mae_ast", "named", "nothing", "odd", "weather"]
    assert registry.names("no_such_folder") == []


@pytest.mark.usefixtures("shelf")
def test_a_summary_needs_no_import():
    assert registry.summary("shelf", "mae_ast") == "Rebuild patches."
    assert registry.summary("shelf", "odd") == ""  # importing it would raise


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("mae_ast", "MAEAST"),
        ("mae-ast", "MAEAST"),
        ("MAE-AST", "MAEAST"),
        ("weather", "weather"),
        ("named", "Other"),
    ],
)
def test_find_gives_the_class_or_function_that_is_called_like_its_file(name, found):
    assert registry.find("shelf", name).__name__ == found


@pytest.mark.usefixtures("shelf")
def test_find_and_name_of_are_inverse():
    assert registry.name_of(registry.find("shelf", "mae_ast")) == "mae_ast"
    assert registry.find("shelf", "json:JSONDecoder").__name__ == "JSONDecoder"
    assert (
        registry.name_of(registry.find("shelf", "json.decoder:JSONDecoder"))
        == "json.decoder:JSONDecoder"
    )


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "mae",
            r"unknown shelf 'mae'; did you mean mae_ast\? available: mae_ast, named, nothing, odd, weather",
        ),
        (
            "nothing",
            "melpatch.shelf.nothing registers nothing: name its class like the file, or set __registered__",
        ),
        (
            "no_such_module:X",
            "shelf 'no_such_module:X' cannot be imported: there is no module 'no_such_module' in "
            "the folder that the command started in, nor among the installed ones; "
            "start in .* PYTHONPATH",
        ),
        (
            "json:NoSuchClass",
            "shelf 'json:NoSuchClass' cannot be imported: json has no 'NoSuchClass'; "
            "write package.module:name",
        ),
        (
            "json:JSONDecodr",
            "shelf 'json:JSONDecodr' cannot be imported: json has no 'JSONDecodr'; "
            r"did you mean JSONDecoder.*\?",
        ),
    ],
)
def test_what_is_not_there_is_said_with_what_is(name, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        registry.find("shelf", name)


# -------------------------------------------------------------------------------- pieces of others


def test_a_piece_of_an_installed_package_is_found_by_its_entry_point(birds):
    assert "warbler" not in registry.names("objectives")
    assert "warbler" in registry.all_names("objectives")
    assert registry.pieces("objectives")["warbler"] == ("Warblers sing.", "birds 1.2")
    assert registry.pieces("commands")["count"] == ("Count the birds.", "birds 1.2")
    assert "birds" not in sys.modules  # nothing has been imported for the list
    warbler = registry.find("objectives", "Warbler")
    assert warbler is sys.modules["birds.objectives"].Warbler
    assert registry.name_of(warbler) == "birds.objectives:Warbler"
    assert registry.find("objectives", registry.name_of(warbler)) is warbler
    assert registry.find("commands", "count") is sys.modules["birds.count"]
    assert registry.find("commands", "birds:count") is sys.modules["birds.count"]


@pytest.mark.usefixtures("birds")
def test_a_built_in_name_wins_over_an_entry_point_with_a_notice(capsys):
    registry.notice_if_shadowed.cache_clear()
    assert registry.find("objectives", "ssast").__module__ == "melpatch.objectives.ssast"
    line = "objectives 'ssast' is melpatch's own; for that of birds 1.2, write birds.objectives:SSAST\n"
    assert capsys.readouterr().err == line
    registry.find("objectives", "ssast")
    assert capsys.readouterr().err == ""
    assert registry.pieces("objectives")["ssast"].origin == "melpatch"


@pytest.mark.usefixtures("birds")
def test_an_own_recipe_and_an_own_command_are_run_by_name(capsys):
    settings = recipe("forest")("nano")
    assert settings == recipe("ssast")("nano")
    assert recipe("birds.recipes:forest")("nano") == settings
    assert recipe_settings("forest", "nano", None, with_labels=False) == settings
    assert recipe("birds.objectives:Warbler")("nano").objective.pitch == 3
    assert cli.main(["--help"]) == 0
    assert re.search(r"^ +count +Count the birds\.$", capsys.readouterr().out, re.MULTILINE)
    assert cli.main(["count", "--most", "2"]) == 0
    assert cli.main(["birds:count", "--most", "3"]) == 0
    assert capsys.readouterr().out == "2 birds\n3 birds\n"


@pytest.mark.usefixtures("birds")
@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("objectives", ":", "objectives ':': not a name; write package.module:name"),
        ("objectives", "..x:y", "objectives '..x:y': not a name; write package.module:name"),
        ("objectives", "os:system", "'os:system' is a builtin_function_or_method; wanted: an obj"),
        ("encoders", "pathlib:Path", "encoders 'pathlib:Path' is a type; wanted: an encoder class"),
        ("datasets", "os:sep", "datasets 'os:sep' is a str; wanted: a dataset's card"),
        ("commands", "os:path", "commands 'os:path' is a module; wanted: a module with Config and"),
        ("commands", "birds:no", "commands 'birds:no' cannot be imported: .*; write package.mod"),
        ("objectives", "broken", "'birds.broken:X' cannot be imported: ZeroDivisionError.*; write"),
    ],
)
def test_what_is_no_piece_is_refused_in_one_line(kind, name, message):
    with pytest.raises(ConfigError, match=message) as caught:
        registry.find(kind, name)
    assert "\n" not in str(caught.value)


INHERITING = """
from dataclasses import dataclass
from melpatch.encoders.cnn14 import CNN14
from melpatch.objectives.cola import COLA

class Louder(COLA):
    def forward(self, batch, step):
        raise RuntimeError

class Wider(CNN14):
    pass

class Own(COLA):
    @dataclass(frozen=True, kw_only=True)
    class Config(COLA.Config):
        pass
"""


def test_a_class_that_inherits_its_settings_is_not_taken_for_its_parent(tmp_path, monkeypatch):
    """By its Config a class is found again: COLA would be trained under the name of Louder."""
    (tmp_path / "inheriting.py").write_text(INHERITING)
    monkeypatch.syspath_prepend(tmp_path)
    for kind, name, parent in [
        ("objectives", "inheriting:Louder", "COLA"),
        ("recipes", "inheriting:Louder", "COLA"),
        ("encoders", "inheriting:Wider", "CNN14"),
    ]:
        message = f"{name}' has no Config of its own, so {parent} would be built in its stead; add"
        with pytest.raises(ConfigError, match=message):
            registry.find(kind, name)
    assert type(recipe("inheriting:Own")("nano").objective).__module__ == "inheriting"


@pytest.mark.usefixtures("birds")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("os:system", "'os:system' is a builtin_function_or_method; wanted: a function of the enc"),
        ("subprocess:run", "subprocess:run failed when called with 'nano': FileNotFoundError"),
        ("shutil:which", "shutil:which returned a NoneType; a recipe returns a melpatch"),
        ("os:fspath", "wanted: a function of the encoder's size"),
        ("base64:main", "cannot be called with the size of an encoder"),
        ("os.path:basename", "os.path:basename returned a str; a recipe returns a melpatch"),
        ("pathlib:Path", "pathlib:Path is no objective"),
        ("warbling", "unknown recipe or objective 'warbling'; did you mean warbler"),
    ],
)
def test_what_is_no_recipe_is_refused_in_one_line(name, message):
    with pytest.raises(ConfigError, match=message):
        recipe(name)("nano")


def test_a_package_that_is_installed_meanwhile_is_found(birds):
    assert "owl" not in registry.all_names("recipes")
    folder = birds / "owls-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: owls\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[melpatch.recipes]\nowl = owls:owl\n")
    os.utime(birds, (0, 0))  # clocks of file systems may not have ticked since the folder was read
    assert "owl" in registry.all_names("recipes")
