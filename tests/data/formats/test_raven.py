"""Selection tables of Raven: a sound by name or beside, views, offsets, and columns of labels."""

import pytest
from tiny_wav import write_wavs

from melpatch.data.manifest import load_corpus
from melpatch.errors import DataError


def table(path, *rows):
    path.write_text("".join("\t".join(row) + "\r\n" for row in rows), encoding="utf-8")
    return path


TIMES = ("Begin Time (s)", "End Time (s)")


@pytest.mark.parametrize("label", ["Species", "label", "My notes of it"])
def test_the_sound_is_beside_the_table_and_views_count_once(tmp_path, label):
    write_wavs(tmp_path, [0])
    path = table(
        tmp_path / "0.Table.1.selections.txt",
        ("Selection", "View", "Channel", *TIMES, "Low Freq (Hz)", label),
        ("1", "Waveform 1", "1", "0.05", "0.15", "100", "wren"),
        ("1", "Spectrogram 1", "1", "0.05", "0.15", "100", "wren"),
        ("2", "Spectrogram 1", "1", "x", "0.1", "100", "wren"),
    )
    corpus = load_corpus([path])
    (clip,) = corpus.clips
    assert (clip.path, clip.start, clip.duration) == (tmp_path / "0.wav", 0.05, 0.1)
    assert clip.labels == ("wren",)
    assert "Begin Time (s) = 'x'" in corpus.rejected[0].reason


def test_joined_tables_number_their_selections_anew(tmp_path):
    write_wavs(tmp_path, [0, 1])
    path = table(
        tmp_path / "all.txt",
        ("Selection", *TIMES, "Begin File", "Label"),
        ("1", "0.01", "0.05", "0.wav", "a"),
        ("2", "0.06", "0.1", "0.wav", "a"),
        ("1", "0.01", "0.05", "1.wav", "b"),
        ("2", "0.02", "0.06", "1.wav", "b"),
    )
    assert [clip.labels for clip in load_corpus([path]).clips] == [("a",), ("a",), ("b",), ("b",)]


def test_times_through_a_list_of_files_are_those_in_the_file_named(tmp_path):
    write_wavs(tmp_path, [0, 1])
    path = table(
        tmp_path / "all.txt",
        ("Selection", *TIMES, "Begin File", "File Offset (s)", "Label"),
        ("7", "100.05", "100.15", "1.wav", "0.02", "a"),
    )
    (clip,) = load_corpus([path]).clips
    assert (clip.path.name, clip.start, clip.duration) == ("1.wav", 0.02, 0.1)


def test_a_table_without_its_sound_says_so(tmp_path):
    write_wavs(tmp_path, [0])
    path = table(tmp_path / "gone.txt", (*TIMES, "Label"), ("0", "1", "a"))
    with pytest.raises(DataError, match=r"no sound gone\.\* lies beside"):
        load_corpus([path])
