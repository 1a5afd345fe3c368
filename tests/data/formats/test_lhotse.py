"""Cuts of Lhotse: stretches of files with what supervisions say; commands are never run."""

import gzip
import json

import pytest
from tiny_wav import write_wavs

from melpatch.data.manifest import load_corpus
from melpatch.errors import DataError


def cut(file, start=0.0, duration=0.1, **changes):
    source = {"type": "file", "channels": [0], "source": str(file)}
    return {
        "id": f"{file}-{start}",
        "start": start,
        "duration": duration,
        "channel": 0,
        "supervisions": [],
        "recording": {"id": "r", "sources": [source], "sampling_rate": 8000, "duration": 0.2},
        "type": "MonoCut",
    } | changes


def supervision(**facts):
    return {"id": "s", "recording_id": "r", "start": 0, "duration": 0.1, "channel": 0} | facts


def written(path, cuts):
    content = "".join(cut if isinstance(cut, str) else json.dumps(cut) + "\n" for cut in cuts)
    path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return path


@pytest.mark.parametrize("name", ["cuts.jsonl", "cuts.jsonl.gz"])
def test_stretches_speakers_and_labels_are_read(tmp_path, capsys, name):
    write_wavs(tmp_path, [0, 1])
    said = supervision(speaker="ann", text="hello there", custom={"label": "dog", "more": {"a": 1}})
    cuts = [
        cut("0.wav", 0.05, supervisions=[said]),
        cut(tmp_path / "1.wav", supervisions=[said, said | {"custom": {"label": "cat"}}]),
        cut("1.wav", 0.1, custom={"label": "owl"}),
    ]
    corpus = load_corpus([written(tmp_path / name, cuts)])
    assert [(c.path.name, c.start, c.duration, c.labels, c.group) for c in corpus.clips] == [
        ("0.wav", 0.05, 0.1, ("dog",), "ann"),
        ("1.wav", 0.0, 0.1, ("dog", "cat"), "ann"),
        ("1.wav", 0.1, 0.1, ("owl",), ""),
    ]
    assert "read as cuts of Lhotse" in capsys.readouterr().err
    assert load_corpus([tmp_path / name], label_column="text").labels == ("hello there",)


def test_recordings_alone_are_read(tmp_path):
    write_wavs(tmp_path, [0])
    path = written(tmp_path / "recordings.jsonl.gz", [cut("0.wav")["recording"]])
    assert [(clip.path.name, clip.duration) for clip in load_corpus([path]).clips] == [
        ("0.wav", 0.2)
    ]


def with_source(**source):
    recording = cut("0.wav")["recording"]
    return cut("0.wav", recording=recording | {"sources": [recording["sources"][0] | source]})


def test_bad_lines_are_named_and_the_others_are_taken(tmp_path):
    write_wavs(tmp_path, [0])
    recording = cut("0.wav")["recording"]
    cuts = [
        cut("0.wav"),
        with_source(type="command", source=f"touch {tmp_path}/ran"),
        with_source(type="url", source="http://x/a.wav"),
        cut("0.wav", type="MixedCut"),
        cut("0.wav", recording=recording | {"transforms": [{"name": "Speed"}]}),
        cut("0.wav", recording=recording | {"sources": recording["sources"] * 2}),
        cut("0.wav", recording=None),
        cut("0.wav", start=-1),
        cut("0.wav", duration=0),
        "{broken\n",
        "3\n",
    ]
    path = written(tmp_path / "cuts.jsonl", cuts)
    corpus = load_corpus([path])
    assert len(corpus.clips) == 1
    assert [bad.path for bad in corpus.rejected] == [f"{path}, line {n}" for n in range(2, 12)]
    beginnings = [
        "its sound comes from a command, which is never run",
        "its sound is of type 'url'; allowed: file",
        "a MixedCut, not a stretch of a recording",
        "its recording is transformed on loading",
        "a recording of 2 sources",
        "no recording with sources",
        "start = '-1'",
        "duration = 0",
        "not JSON (Expecting",
        "a int, not a JSON object",
    ]
    for bad, beginning in zip(corpus.rejected, beginnings, strict=True):
        assert bad.reason.startswith(beginning)
    assert not (tmp_path / "ran").exists()


def test_one_of_several_channels_is_told(tmp_path, capsys):
    write_wavs(tmp_path, [0])
    load_corpus([written(tmp_path / "cuts.jsonl", [with_source(channels=[0, 1])])])
    assert "the channels of cuts are not used; --channel says" in capsys.readouterr().err


@pytest.mark.parametrize("end", [60, -4])
def test_a_damaged_archive_is_one_line(tmp_path, end):
    path = written(tmp_path / "cuts.jsonl.gz", [cut(f"{n}.wav") for n in range(9)])
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(DataError, match=r"damaged \(breaks off\); copy it again|not JSON|neither"):
        load_corpus([path])
