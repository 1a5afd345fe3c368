import os

import pytest

from melpatch.errors import ConfigError
from melpatch.outputs import check_output, list_beside

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
