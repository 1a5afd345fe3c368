"""Kaldi's data folders; a command in wav.scp is never run, whatever it is."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_wav import write_wavs

from melpatch.data.formats.kaldi import Kaldi
from melpatch.data.manifest import load_corpus
from melpatch.errors import DataError


def written(folder, **files):
    """Write the files of a data folder, beside which the sounds lie."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        (folder / name.replace("wav_scp", "wav.scp")).write_text("\n".join(lines) + "\n")
    return folder


def test_recordings_segments_speakers_and_labels_are_read(tmp_path, capsys):
    sounds = write_wavs(tmp_path / "sounds", [0, 1])
    data = written(
        tmp_path / "data",
        wav_scp=[f"r0 {sounds}/0.wav", "r1\t../sounds/1.wav"],
        segments=["u0 r0 0.00 0.10", "u1 r0 0.1 -1", "u2 r1 0 0.2"],
        utt2spk=["u0 ann", "u1 ann", "u2 ben"],
        utt2label=["u0 dog", "u2 cat"],
        text=["u0 a dog barks", "u1 it stops"],
    )
    corpus = load_corpus([data])
    assert [(c.path.name, c.start, c.duration, c.labels, c.group) for c in corpus.clips] == [
        ("0.wav", 0.0, 0.1, ("dog",), "ann"),
        ("0.wav", 0.1, 0.1, (), "ann"),
        ("1.wav", 0.0, 0.2, ("cat",), "ben"),
    ]
    assert "read as Kaldi's data folder" in capsys.readouterr().err
    assert load_corpus([data], label_column="text").labels == ("a dog barks", "it stops")
    assert load_corpus([data / "wav.scp"]).clips == corpus.clips


def test_folders_of_splits_are_read_together(tmp_path):
    for split, number in (("train", 0), ("dev", 1), ("test", 2)):
        sounds = write_wavs(tmp_path / "data" / split, [number])
        written(sounds, wav_scp=[f"u{number} {number}.wav"], utt2split=[])
    corpus = load_corpus([tmp_path / "data"])
    assert sorted((clip.path.name, clip.split) for clip in corpus.clips) == [
        ("0.wav", "train"),
        ("1.wav", "val"),
        ("2.wav", "test"),
    ]


def test_bad_lines_are_named_and_the_others_are_taken(tmp_path):
    sounds = write_wavs(tmp_path / "data", [0, 1])
    written(
        sounds,
        wav_scp=["r0 0.wav", "r1 sox 1.wav -t wav - |", "r2 raw.ark:1234", "r3 0.wav", "r3 1.wav"],
        segments=[
            "u0 r0 0 0.1",
            "u1 r1 0 0.1",
            "u2 r2 0 0.1",
            "u3 r3 0 0.1",
            "u4 r9 0 0.1",
            "u5 r0 -0.1 0.1",
            "u6 r0 0.1 0.05",
            "u0 r0 0 0.2",
            "u7 r0 0",
            "u8 r0 0.1 0.2",
        ],
        utt2label=["u0 a", "u8 b", "u8 c"],
    )
    corpus = load_corpus([sounds])
    assert len(corpus.clips) == 1
    segments = sounds / "segments"
    reasons = [(bad.path.removeprefix(f"{segments}, "), bad.reason) for bad in corpus.rejected]
    assert reasons == [
        (
            "line 2",
            "a command (sox 1.wav -t wav - |), which is never run; write its sound to a file",
        ),
        ("line 3", "a part of an archive of Kaldi (raw.ark:1234); write its sound to a file"),
        ("line 4", "'r3' has several values in wav.scp, lines 4 and 5; keep one"),
        ("line 5", "'r9' is not in wav.scp; add it there, or drop the line"),
        ("line 6", "start = '-0.1'; allowed: seconds, 0 or more, or blank"),
        ("line 7", "end = '0.05'; allowed: seconds after the start, 0.1"),
        ("line 8", "utterance 'u0' is in line 1 already; drop one"),
        ("line 9", "not a segment: utterance, recording, start and end"),
        ("line 10", "'u8' has several values in utt2label, lines 2 and 3; keep one"),
    ]


COMMANDS = st.text(st.characters(exclude_characters="\n\r\0", codec="utf-8"), max_size=40)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(command=COMMANDS, before=st.booleans())
def test_whatever_has_a_pipe_is_refused(tmp_path, command, before):
    entry = f"| {command}" if before else f"{command} |"
    marker = tmp_path / "ran"
    lines = [f"u0 touch {marker}; {entry}", f"u1 {entry}  ", f"u2 {entry} touch {marker} |"]
    data = written(tmp_path / "data", wav_scp=lines)
    # Characters that end a line elsewhere do not split an entry in two.
    cells = [cells for _, cells in Kaldi().table(data / "wav.scp").lines]
    refused = [cells for cells in cells if isinstance(cells, str)]
    assert all("which is never run" in reason for reason in refused)
    assert len(refused) >= 2
    assert not marker.exists()


def test_a_folder_of_commands_alone_is_one_line(tmp_path):
    data = written(tmp_path / "data", wav_scp=[f"u0 touch {tmp_path}/ran |"])
    with pytest.raises(
        DataError, match=r"line 1: a command .*, which is never run; write"
    ) as caught:
        load_corpus([data])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()
