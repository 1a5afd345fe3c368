import os
import re

import pytest

from melpatch import outputs
from melpatch.cli import main
from melpatch.commands import prepare
from melpatch.errors import ConfigError
from melpatch.outputs import as_file_name, check_output, is_reserved, list_beside

HEADER = "path,reason"


def check(out, inputs=(), own=False, overwrite=False):
    check_output(out, inputs=inputs, is_own=lambda path: own, overwrite=overwrite)


def test_an_output_of_another_origin_needs_the_flag_and_an_input_is_never_written_over(tmp_path):
    out = tmp_path / "a.csv"
    check(out, [out])
    out.write_text("mine")
    check(out, own=True)
    check(out, overwrite=True)
    with pytest.raises(ConfigError, match=r"a.csv: exists, and was not made .*--overwrite"):
        check(out)
    os.link(out, tmp_path / "hard.csv")
    (tmp_path / "soft.csv").symlink_to(out)
    for name in ("a.csv", "hard.csv", "soft.csv", "../" + tmp_path.name + "/a.csv"):
        with pytest.raises(ConfigError, match=r"a.csv: is an input"):
            check(out, ["other", tmp_path / name], own=True, overwrite=True)


def test_lists_beside_outputs_of_one_stem_do_not_meet(tmp_path):
    first, second = tmp_path / "a.csv", tmp_path / "a.npz"
    assert list_beside(first, "rejected", HEADER).name == "a.rejected.csv"
    first.write_text("x")
    (tmp_path / "a.rejected.csv").write_text(f"{HEADER}\nx,y\n")
    assert list_beside(first, "rejected", HEADER).name == "a.rejected.csv"
    assert list_beside(second, "rejected", HEADER).name == "a.npz.rejected.csv"
    (tmp_path / "b.csv.parts").mkdir()
    assert list_beside(tmp_path / "b", "rejected", HEADER).name == "b.rejected.csv"
    assert list_beside(tmp_path / "b.npz", "rejected", HEADER).name == "b.npz.rejected.csv"


def test_a_file_of_the_user_or_an_input_is_no_list(tmp_path):
    mine = tmp_path / "a.rejected.csv"
    mine.write_text("path,reason,who\n")
    assert list_beside(tmp_path / "a.csv", "rejected", HEADER).name == "a.csv.rejected.csv"
    (tmp_path / "a.csv.rejected.csv").write_text("mine")
    with pytest.raises(ConfigError, match=r"a.csv.rejected.csv is in the way"):
        list_beside(tmp_path / "a.csv", "rejected", HEADER)
    mine.write_text(f"{HEADER}\n")
    assert list_beside(tmp_path / "a.npz", "rejected", HEADER) == mine
    assert list_beside(tmp_path / "a.npz", "rejected", HEADER, [mine]) != mine


RESERVED = (
    "CON",
    "nul",
    "Com1.csv",
    "lpt9",
    "aux.tar.gz",
    "a:b",
    "a.",
    "a ",
    "a?",
    "a*b",
    'a"b',
    "a|b",
)


@pytest.mark.parametrize("name", [*RESERVED, "a/b", "a\\b", "\n", "Com1", "x" * 300, "..", ""])
def test_whatever_a_split_is_called_its_files_have_names_that_every_system_takes(name):
    plain = as_file_name(name)
    assert not is_reserved(plain)
    assert "/" not in plain
    assert len(plain.encode()) <= 255
    assert plain not in ("", ".", "..")
    assert plain != as_file_name(f"{name}x")


@pytest.mark.parametrize(
    "texts", [("Test", "test"), ("ß", "SS"), ("\u00e9", "e\u0301"), ("A", "a")]
)
def test_names_may_have_to_differ_where_case_and_accents_are_ignored(texts):
    first, second = (as_file_name(text, any_case=False).casefold() for text in texts)
    assert first != second
    assert as_file_name("fold 1", any_case=False) == "fold 1"


@pytest.mark.parametrize("name", RESERVED)
def test_on_windows_a_reserved_name_is_refused_by_every_command(
    name, tmp_path, monkeypatch, capsys
):
    # Imported before, since libraries look at the platform too.
    assert prepare.run
    monkeypatch.setattr(outputs.sys, "platform", "win32")
    for words in (
        ("prepare", str(tmp_path), "--out", str(tmp_path / name)),
        ("prepare", str(tmp_path), "--out", str(tmp_path / name / "c.csv")),
    ):
        assert main([*words]) == 2
        told = capsys.readouterr().err
        assert re.search(r"error: --out .*: Windows reserves .*; give a name without", told)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("name", ["console", "com", "nullity.csv", "auxiliary", ".hidden", "lpt10"])
def test_other_names_are_no_devices(name):
    assert not is_reserved(name)
