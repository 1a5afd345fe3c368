"""Tables in several formats list the same clips; tables in folders of splits are read with them."""

import json
import os

import numpy as np
import pytest
import soundfile

from melpatch.data.manifest import load_corpus
from melpatch.errors import DataError

CLIPS = [("a.wav", "dog", "train"), ("b.wav", 'a "big" cat, asleep', "1"), ("c.wav", "owl", "none")]


def sound(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(800), 8000)


def content(corpus):
    return {(clip.path.name, clip.labels, clip.split) for clip in corpus.clips}


def json_lines(names, clips):
    return "\n".join(json.dumps(dict(zip(names, clip, strict=True))) for clip in clips)


def quoted(cell):
    escaped = cell.replace('"', '""')
    return f'"{escaped}"'


NAMES = ("path", "label", "split")
FORMATS = {
    "x.csv": "\n".join(",".join(map(quoted, row)) for row in (NAMES, *CLIPS)),
    "semicolons.csv": "\n".join(";".join(map(quoted, row)) for row in (NAMES, *CLIPS)),
    "tabs.csv": "\n".join("\t".join(row) for row in (NAMES, *CLIPS)),
    "x.tsv": "\n".join("\t".join(row) for row in (NAMES, *CLIPS)),
    "quoted.tsv": "\n".join("\t".join(map(quoted, row)) for row in (NAMES, *CLIPS)),
    "x.jsonl": json_lines(("audio_filepath", "label", "split"), CLIPS),
    "lists.jsonl": json_lines(NAMES, [(path, [label], split) for path, label, split in CLIPS]),
    "x.json": json.dumps([dict(zip(NAMES, clip, strict=True)) for clip in CLIPS], indent=1),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_lists_the_same_clips(tmp_path, name):
    for file, _, _ in CLIPS:
        sound(tmp_path / file)
    (tmp_path / name).write_text(FORMATS[name] + "\n", encoding="utf-8")
    expected = {(file, (label,), split) for file, label, split in CLIPS}
    assert content(load_corpus([tmp_path / name])) == expected


def test_a_list_of_labels_has_one_label_an_item(tmp_path):
    sound(tmp_path / "a.wav")
    line = json.dumps({"path": "a.wav", "label": ["bang; crash", "hiss"]})
    (tmp_path / "x.jsonl").write_text(line, encoding="utf-8")
    (clip,) = load_corpus([tmp_path / "x.jsonl"]).clips
    assert clip.labels == ("bang, crash", "hiss")


def test_bad_json_lines_are_named_and_the_others_are_taken(tmp_path, capsys):
    sound(tmp_path / "a.wav")
    lines = [
        "{broken",
        '{"path": "a.wav", "label": 3, "more": {"x": 1}}',
        "[1]",
        "",
        '{"label": "b"}',
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(lines), encoding="utf-8")
    corpus = load_corpus([tmp_path / "x.jsonl"])
    assert content(corpus) == {("a.wav", ("3",), "")}
    assert [file.path.rpartition("line ")[2] for file in corpus.rejected] == ["1", "3", "5"]
    assert "not JSON" in corpus.rejected[0].reason
    assert "a list, not a JSON object" in corpus.rejected[1].reason
    assert "3 lines are malformed" in capsys.readouterr().err


@pytest.mark.parametrize("top", ["", "data/"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", "file_name,label\n{}.wav,dog\n"),
        ("metadata.jsonl", '{{"file_name": "{}.wav", "label": "dog"}}\n'),
    ],
)
def test_tables_in_folders_of_splits_are_read(tmp_path, capsys, top, name, text):
    """As of Hugging Face's AudioFolder; keys are those of the same folder without tables."""
    root = tmp_path / "set"
    for split in ("train", "validation"):
        for file in (split, "unlisted"):
            sound(root / top / split / f"{file}.wav")
    bare = {clip.path: clip.key for clip in load_corpus([root]).clips}
    for split in ("train", "validation"):
        (root / top / split / name).write_text(text.format(split), encoding="utf-8")
    sound(root / top / "test" / "dog" / "c.wav")
    capsys.readouterr()
    corpus = load_corpus([root])
    assert content(corpus) == {
        ("train.wav", ("dog",), "train"),
        ("validation.wav", ("dog",), "val"),
        ("c.wav", ("dog",), "test"),
    }
    assert all(bare[clip.path] == clip.key for clip in corpus.clips if clip.path in bare)
    told = " ".join(capsys.readouterr().err.split())
    assert "read as splits (train, val, test), by the tables in them" in told
    assert "lists 1 of 2 files" in told


def test_the_table_of_a_class_is_not_read(tmp_path):
    for label in ("dog", "cat"):
        sound(tmp_path / label / "a.wav")
        (tmp_path / label / "metadata.csv").write_text("file_name,label\na.wav,x\n")
    assert load_corpus([tmp_path]).labels == ("cat", "dog")


@pytest.fixture
def bomb(tmp_path, monkeypatch):
    """An archive of 16 MiB of zeros, where 64 KiB are the most that is expected."""
    monkeypatch.setattr("melpatch.opening._SMALL_ARCHIVE", 1 << 16)
    np.savez_compressed(tmp_path / "bomb.npz", path=np.zeros(1 << 21))
    return tmp_path / "bomb.npz"


def test_a_table_that_would_fill_the_memory_is_refused(bomb):
    with pytest.raises(DataError, match=r"bomb\.npz: damaged.* bytes would become"):
        load_corpus([bomb])


@pytest.mark.parametrize("content", [b"", b"path,label\n"])
def test_a_line_without_an_end_is_not_read_to_the_end(tmp_path, content):
    path = tmp_path / "endless.csv"
    path.write_bytes(content)
    os.truncate(path, 1 << 36)
    with pytest.raises(
        DataError, match=r"endless\.csv, line \d: not a CSV file \(.*; save it with"
    ):
        load_corpus([path])
