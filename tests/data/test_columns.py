import pytest

from melpatch.data.columns import ColumnNames, class_columns, recognise
from melpatch.errors import DataError


def roles(header, **names):
    columns = recognise("x.csv", header, ColumnNames(**names))
    return {role: header[number] for role, number in columns.numbers.items()}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (["file_path", "speaker_id", "fold"], ["path", "group", "split"]),
        (["filename", "onset", "offset"], ["path", "start", "end"]),
        (["audio_filepath", "offset", "duration"], ["path", "start", "duration"]),
        (["Path", "Label", "Split"], ["path", "label", "split"]),
        (["File Name", "Begin Time (s)", "End Time (s)"], ["path", "start", "end"]),
        (["path", "split_or_fold", "speaker"], ["path", "split", "group"]),
        (["path", "offset", "size", "crc32"], ["path", "offset", "size", "crc32"]),
    ],
)
def test_columns_are_recognised_by_other_names(header, expected):
    found = roles(header)
    assert [found[role] for role in expected] == header


def test_a_columns_own_name_comes_first_and_what_the_user_names_before_all():
    header = ["path", "fold", "split", "Split", "class", "site"]
    assert roles(header)["split"] == "split"
    given = roles(header, split="fold", group="site")
    assert (given["split"], given["group"], given["label"]) == ("fold", "site", "class")
    with pytest.raises(DataError, match=r"x.csv: no column 'ward'; found: 'path', 'fold'"):
        roles(header, group="ward")


def test_unused_columns_are_named_and_an_ambiguous_one_is_not_taken():
    columns = recognise("x.csv", ["path", "start", "offset", "size", "end_ms"], ColumnNames())
    assert columns.remark() == (
        "columns that are not used: 'offset', 'size', 'end_ms'; start, end and duration are read in "
        "seconds only"
    )
    many = recognise("x.csv", ["path", *(f"c{n}" for n in range(12))], ColumnNames())
    assert many.remark().endswith("'c6', 'c7' and 4 more")


def test_a_class_never_looks_like_another_column():
    labels = ("dog", "label", "Split", "speaker id", "probability:dog", "probability", "onset")
    names = class_columns(labels, ("probability",))
    assert names == ("dog", *(f"probability:{label}" for label in labels[1:]))
    assert set(roles(["path", *names])) == {"path"}
