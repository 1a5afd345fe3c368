"""Parquet of Hugging Face's datasets: sound in rows, names of classes, splits from names of files."""

import io

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from parquet_files import CLASSES, SOUND, write_clips, write_dataset, write_parquet
from tiny_wav import RATE, wav

from melpatch.data import parquet
from melpatch.data.manifest import load_corpus, write_corpus
from melpatch.data.sound import byte_range, decode
from melpatch.errors import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "set")


def test_sounds_classes_splits_and_speakers_are_read(folder, capsys):
    (folder / "LICENSE").write_text("Free.")
    corpus = load_corpus([folder])
    assert corpus.splits == {"test": 3, "train": 9}
    # The files are sorted by name: test, then train.
    numbers = [9, 10, 11, *range(9)]
    for number, clip in zip(numbers, corpus.clips, strict=True):
        assert clip.labels == (CLASSES[number % 3],)
        assert clip.group == f"speaker {number % 2}"
        assert (clip.start, clip.duration) == (0, 0.2)
        expected, _ = soundfile.read(io.BytesIO(wav(number)), dtype="float32")
        np.testing.assert_array_equal(decode(clip, RATE), expected)
    notices = capsys.readouterr().err
    assert f"{folder}: read as Parquet, in 3 files; splits: test (3), train (9)" in notices


def test_the_list_that_prepare_writes_opens_no_sound_and_gives_the_same(folder, tmp_path, capsys):
    corpus = load_corpus([folder])
    write_corpus(corpus, folder / "list.csv")
    capsys.readouterr()
    again = load_corpus([folder / "list.csv"])
    assert again.clips == corpus.clips
    assert "reading" not in capsys.readouterr().err
    (folder / "list.csv").unlink()


def test_workers_probe_the_same_corpus(folder):
    assert load_corpus([folder], workers=2) == load_corpus([folder])


def test_files_by_any_name_are_recognised_by_what_they_hold(tmp_path):
    paths = pa.array([{"bytes": None, "path": "a.wav"}], type=SOUND)
    (tmp_path / "a.wav").write_bytes(wav(0))
    file = write_parquet(tmp_path / "list.pq", {"audio": paths}, {"audio": {"_type": "Audio"}})
    (clip,) = load_corpus([file]).clips
    assert (clip.path, clip.size) == (tmp_path / "a.wav", 0)
    named = write_clips(tmp_path / "sound.pq", [1])
    with pytest.raises(DataError, match=r"holds sound as Parquet; rename it to end in .parquet"):
        load_corpus([named])


def test_rows_without_sound_or_of_no_class_are_named_and_the_others_are_taken(tmp_path, capsys):
    sounds = [{"bytes": wav(0)}, {"bytes": None}, {"bytes": wav(1)}, {"bytes": wav(2)}]
    columns = {"audio": pa.array(sounds, type=SOUND), "kind": pa.array([0, 0, 7, -1])}
    features = {"kind": {"_type": "ClassLabel", "names": ["cat"]}}
    file = write_parquet(tmp_path / "x.parquet", columns, features)
    corpus = load_corpus([file])
    assert [clip.labels for clip in corpus.clips] == [("cat",), ()]
    assert [(bad.path, bad.reason) for bad in corpus.rejected] == [
        (f"{file}, row 2", "holds neither the bytes nor the path of a sound file"),
        (f"{file}, row 3", "class 7; allowed: 0 to 0, the classes that the file names"),
    ]
    assert "'kind' is read as label" in capsys.readouterr().err


def test_lists_of_classes_and_another_column_of_labels(tmp_path, capsys):
    columns = {
        "audio": pa.array([wav(0), wav(1)]),
        "tags": pa.array([[0, 1], [1]]),
        "kind": pa.array([1, 0]),
    }
    classes = {"_type": "ClassLabel", "names": ["x", "y"]}
    features = {"tags": {"_type": "List", "feature": classes}, "kind": classes}
    file = write_parquet(tmp_path / "x.parquet", columns, features)
    assert [clip.labels for clip in load_corpus([file]).clips] == [("x", "y"), ("y",)]
    corpus = load_corpus([file], label_column="kind")
    assert [clip.labels for clip in corpus.clips] == [("y",), ("x",)]


@pytest.mark.parametrize("tags", [[0, 1], [[0, 1], [1]]], ids=["numbers", "lists"])
def test_a_class_with_a_semicolon_in_its_name_is_one_label(tmp_path, tags):
    columns = {"audio": pa.array([wav(0), wav(1)]), "tags": pa.array(tags)}
    feature = {"_type": "ClassLabel", "names": ["bang; crash", "y"]}
    if isinstance(tags[0], list):
        feature = {"_type": "List", "feature": feature}
    file = write_parquet(tmp_path / "x.parquet", columns, {"tags": feature})
    assert load_corpus([file], label_column="tags").labels == ("bang, crash", "y")


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str
)
def test_lists_of_texts_of_any_kind_are_labels(tmp_path, kind):
    labels = pa.array([["x"], ["y", "x"]]).cast(pa.list_(kind))
    columns = {"audio": pa.array([wav(0), wav(1)]), "label": labels}
    clips = load_corpus([write_parquet(tmp_path / "x.parquet", columns, {})]).clips
    assert [clip.labels for clip in clips] == [("x",), ("y", "x")]


def test_labels_that_are_not_read_are_told(tmp_path, capsys):
    columns = {"audio": pa.array([wav(0)]), "label": pa.array([[3]])}
    assert not load_corpus([write_parquet(tmp_path / "x.parquet", columns, {})]).labels
    assert "'label' is not read: it holds list<" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00002.parquet", "train"),
        ("train.clean.100-00001-of-00014.parquet", "train.clean.100"),
        ("validation-00000-of-00001-d7a6e1b2.parquet", "val"),
        ("default/test/0000.parquet", "test"),
        ("testing.parquet", "test"),
        ("sounds.parquet", ""),
    ],
)
def test_the_split_is_that_of_the_name_or_the_folder(tmp_path, name, split):
    write_clips(tmp_path / name, [0])
    assert [clip.split for clip in load_corpus([tmp_path]).clips] == [split]


def test_samples_instead_of_sound_files_are_refused(tmp_path):
    values = [{"array": [0.0, 0.1], "path": "a.wav", "sampling_rate": 8000}]
    file = write_parquet(tmp_path / "x.parquet", {"audio": pa.array(values)}, {})
    with pytest.raises(DataError, match="column 'audio' holds samples, not sound files; write"):
        load_corpus([file])


def test_a_file_of_no_rows_beside_others_is_no_error(tmp_path):
    write_clips(tmp_path / "train-00000-of-00002.parquet", range(3))
    write_clips(tmp_path / "train-00001-of-00002.parquet", [])
    assert load_corpus([tmp_path]).splits == {"train": 3}


def test_a_folder_of_no_rows_has_no_splits(tmp_path, capsys):
    write_clips(tmp_path / "train.parquet", [])
    with pytest.raises(DataError, match="lists no sound files"):
        load_corpus([tmp_path])
    assert "read as Parquet, in 1 file; splits: none" in capsys.readouterr().err


def test_sound_within_lists_is_no_column_of_sound(tmp_path):
    stored = pa.array([[{"bytes": wav(0), "path": None}]], type=pa.list_(SOUND))
    file = write_parquet(tmp_path / "x.parquet", {"audio": stored}, {})
    with pytest.raises(DataError, match=r"no column holds sound files .*; found: 'audio' \(list<"):
        load_corpus([file])


def test_pictures_are_no_sound(tmp_path, capsys):
    stored = pa.array([{"bytes": wav(n), "path": None} for n in range(3)], type=SOUND)
    columns = {"cover": stored.take(pa.array([2])), "prompt": stored[1:2], "clip": stored[:1]}
    features = {
        "cover": {"_type": "Image"},
        "prompt": {"_type": "Audio"},
        "clip": {"_type": "Audio"},
    }
    (clip,) = load_corpus([write_parquet(tmp_path / "x.parquet", columns, features)]).clips
    assert byte_range(clip).content() == wav(1)
    assert "the sound is column 'prompt'; not used: clip" in capsys.readouterr().err
    with pytest.raises(DataError, match="no column holds sound files"):
        load_corpus([write_parquet(tmp_path / "y.parquet", {"cover": stored}, features)])


@pytest.mark.parametrize("rows", [3, 1000])
def test_tables_without_sound_are_read_in_batches(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(parquet, "_MOST_ROWS_IN_BATCH", rows)
    numbers = range(20)
    columns = {
        "path": [f"{n}.wav" for n in numbers],
        "label": pa.array([[f"t{n % 3}"] * (n % 3) if n % 5 else None for n in numbers]),
        "duration": [0.5 + n for n in numbers],
        "speaker": [None if n % 2 else "ann" for n in numbers],
        "embedding": pa.array([[0.5, 1.5] for n in numbers]),
    }
    file = write_parquet(tmp_path / "x.parquet", columns, {}, row_group_size=10)
    clips = load_corpus([file]).clips
    assert [(c.path.name, c.labels, c.duration, c.group) for c in clips] == [
        (f"{n}.wav", (f"t{n % 3}",) if n % 3 and n % 5 else (), 0.5 + n, "" if n % 2 else "ann")
        for n in numbers
    ]
