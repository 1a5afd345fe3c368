"""Class lists: plain lines, and the layout of AudioSet's."""

import pytest

from melpatch.data.class_list import read_class_list
from melpatch.errors import MelpatchError

AUDIOSET = 'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man speaking"\n'


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (AUDIOSET, ("Speech", "Male speech, man speaking")),
        ("\ufeff" + AUDIOSET.replace("\n", "\r\n"), ("Speech", "Male speech, man speaking")),
        ("rain, on a roof\n dog \n\n", ("rain, on a roof", "dog")),
        ("index\nname\n", ("index", "name")),
    ],
)
def test_a_list_holds_one_name_a_line_or_audiosets_columns(text, labels, tmp_path):
    (tmp_path / "c.csv").write_text(text, encoding="utf-8")
    assert read_class_list(tmp_path / "c.csv") == labels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no class; give one name a line, or a CSV file"),
        ("dog\n\ncat\n", "class 1 has no name; give one name a line"),
        ("dog\ncat\ndog\n", "classes 0 and 2 are both called 'dog'; give each a name of its own"),
        (AUDIOSET.replace("1,/m", "2,/m"), "index does not count from 0.*; give one name a line"),
        (AUDIOSET.replace("1,/m", "one,/m"), r"damaged \(ValueError: .*'one'.*; give one name"),
    ],
)
def test_what_is_no_list_is_named_with_the_remedy(text, message, tmp_path):
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(
        MelpatchError, match=f"c.csv: {message}" if "damaged" in message else message
    ):
        read_class_list(tmp_path / "c.csv")


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(MelpatchError, match=r"none\.csv: cannot be read .*; give one name a line"):
        read_class_list(tmp_path / "none.csv")
