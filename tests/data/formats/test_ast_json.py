"""JSON of AST and SSAST, whose labels are ids that a file beside it gives names to."""

import json

import pytest
from tiny_wav import write_wavs

from melpatch.data.manifest import load_corpus
from melpatch.errors import DataError

CLASSES = 'index,mid,display_name\n0,/m/a,"Speech"\n1,/m/b,"Child speech, kid speaking"\n'


def listed(path, entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"data": entries}))
    return path


@pytest.mark.parametrize(
    "classes",
    ["class_labels_indices.csv", "../class_labels_indices.csv", "../esc_class_labels_indices.csv"],
)
def test_ids_are_replaced_by_names(tmp_path, capsys, classes):
    folder = write_wavs(tmp_path / "datafiles", [0, 1])
    (folder / classes).resolve().write_text(CLASSES)
    entries = [{"wav": "0.wav", "labels": "/m/a,/m/b"}, {"wav": "1.wav", "labels": "/m/a"}]
    corpus = load_corpus([listed(folder / "esc_eval_data_1.json", entries)])
    assert [clip.labels for clip in corpus.clips] == [
        ("Speech", "Child speech, kid speaking"),
        ("Speech",),
    ]
    assert {clip.split for clip in corpus.clips} == {"test"}
    assert "read as JSON of AST" in capsys.readouterr().err


def test_without_names_the_ids_are_the_labels(tmp_path, capsys):
    write_wavs(tmp_path, [0])
    path = listed(tmp_path / "x.json", [{"wav": "0.wav", "labels": "/m/a,/m/b"}])
    assert load_corpus([path]).labels == ("/m/a", "/m/b")
    assert "the labels are ids, for want of the names" in capsys.readouterr().err


def test_a_class_with_a_semicolon_in_its_name_is_one_label(tmp_path):
    write_wavs(tmp_path, [0])
    (tmp_path / "class_labels_indices.csv").write_text(
        'index,mid,display_name\n0,/m/a,"Bang; crash"\n1,/m/b,"Bang, crash"\n2,/m/c,Hiss\n'
    )
    path = listed(tmp_path / "x.json", [{"wav": "0.wav", "labels": "/m/a,/m/c"}])
    (clip,) = load_corpus([path]).clips
    assert clip.labels == ("Bang, crash (/m/a)", "Hiss")


def test_bad_entries_are_named_and_the_others_are_taken(tmp_path):
    write_wavs(tmp_path, [0])
    (tmp_path / "class_labels_indices.csv").write_text(CLASSES)
    entries = [{"wav": "0.wav", "labels": "/m/b"}, {"wav": "0.wav", "labels": "/m/z"}, 3, {}]
    path = listed(tmp_path / "x.json", entries)
    corpus = load_corpus([path])
    assert len(corpus.clips) == 1
    assert [bad.reason.partition(";")[0] for bad in corpus.rejected] == [
        f"label '/m/z' is not in {tmp_path / 'class_labels_indices.csv'}",
        "a int, not a JSON object",
        "no path",
    ]


def test_what_is_missing_or_a_list_is_no_text_of_python(tmp_path):
    write_wavs(tmp_path, [0, 1])
    entries = [
        {"wav": "0.wav", "labels": ["/m/a", "/m/b"]},
        {"wav": "1.wav", "labels": None},
        {"wav": None, "labels": "/m/a"},
    ]
    corpus = load_corpus([listed(tmp_path / "x.json", entries)])
    assert [clip.labels for clip in corpus.clips] == [("/m/a", "/m/b"), ()]
    assert corpus.rejected[0].reason.startswith("no path")
    # A class without a name has its id.
    (tmp_path / "class_labels_indices.csv").write_text("index,mid,display_name\n0,/m/a\n1,/m/b,B\n")
    assert load_corpus([tmp_path / "x.json"]).labels == ("/m/a", "B")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"data": [{"wav": ', "x.json: not JSON "),
        ('{"data": [], "data": 3}', "x.json: data is no list; write "),
        ('{"data": []}', "lists no sound files"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path, content, message):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=message):
        load_corpus([tmp_path / "x.json"])


def test_a_list_of_classes_without_its_columns_is_refused(tmp_path):
    (tmp_path / "class_labels_indices.csv").write_text("id,name\n0,x\n")
    path = listed(tmp_path / "x.json", [{"wav": "0.wav", "labels": "/m/a"}])
    with pytest.raises(DataError, match=r"not a list of classes .* the columns are index, mid"):
        load_corpus([path])
