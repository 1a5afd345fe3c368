"""What every target of an export promises, found through the registry."""

import pytest
from targets.runs import ast, write_run

from melpatch import cli, registry
from melpatch.targets.base import Target

NAMES = registry.names("targets")


def words(folder, name, *more):
    target = registry.find("targets", name)
    out = folder / f"out{target.ending}"
    return out, ["export", str(folder / "run"), "--to", name, "--out", str(out), *more]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    write_run(folder / "run", ast())
    return folder / "run"


@pytest.mark.parametrize("name", NAMES)
def test_a_target_is_a_folder_of_named_files_or_a_file_with_an_ending(name):
    target = registry.find("targets", name)
    assert issubclass(target, Target)
    assert bool(target.ending) != bool(target.files)


def test_an_unknown_target_is_one_line_with_those_that_there_are(tmp_path, capsys):
    assert cli.main(["export", str(tmp_path), "--to", "tflite", "--out", str(tmp_path / "x")]) == 2
    error = capsys.readouterr().err
    assert "unknown target 'tflite'" in error
    assert all(name in error for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_there_is_replaced_only_if_asked(name, run, tmp_path, capsys):
    (tmp_path / "run").symlink_to(run)
    out, command = words(tmp_path, name)
    if not registry.find("targets", name).ending:
        out.write_text("mine")
        assert cli.main([*command, "--overwrite"]) == 2
    else:
        out.write_text("mine")
        assert cli.main(command) == 2
    assert "--out" in capsys.readouterr().err
    assert out.read_text() == "mine"


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_a_file_has_its_ending(name, run, capsys, tmp_path):
    target = registry.find("targets", name)
    if not target.ending:
        pytest.skip("a folder")
    out = tmp_path / "out.bin"
    assert cli.main(["export", str(run), "--to", name, "--out", str(out)]) == 2
    assert f"ends in {target.ending}" in capsys.readouterr().err
