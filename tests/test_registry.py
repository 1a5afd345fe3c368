"""The folder is the registry: files are found by name, described without being imported, and told apart from others."""

import sys

import pytest

from melpatch import registry
from melpatch.errors import ConfigError


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
        ("mae", "no shelf piece is called 'mae'; there are: mae_ast, named, nothing, odd, weather"),
        (
            "nothing",
            "melpatch.shelf.nothing registers nothing: name its class like the file, or set __registered__",
        ),
        (
            "no_such_module:X",
            "shelf 'no_such_module:X' cannot be imported: .*; write package.module:Class",
        ),
        (
            "json:NoSuchClass",
            "shelf 'json:NoSuchClass' cannot be imported: .*; write package.module:Class",
        ),
    ],
)
def test_what_is_not_there_is_said_with_what_is(name, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        registry.find("shelf", name)
