"""Manifests of NeMo: stretches of files, with a label, a command or a transcript."""

import gzip
import json

import pytest
from tiny_wav import write_wavs

from melpatch.data.manifest import load_corpus


def manifest(path, lines):
    path.write_text(
        "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
    )
    return path


@pytest.mark.parametrize("name", ["manifest.json", "list.jsonl", "list.txt"])
def test_stretches_and_commands_are_read_whatever_the_name(tmp_path, capsys, name):
    write_wavs(tmp_path, [0, 1])
    lines = [
        {"audio_filepath": "0.wav", "offset": 0.05, "duration": 0.1, "command": "yes", "text": "y"},
        {"audio_filepath": str(tmp_path / "1.wav"), "duration": 0.2, "command": "no", "text": "n"},
    ]
    corpus = load_corpus([manifest(tmp_path / name, lines)])
    assert [(c.path.name, c.start, c.duration, c.labels) for c in corpus.clips] == [
        ("0.wav", 0.05, 0.1, ("yes",)),
        ("1.wav", 0.0, 0.2, ("no",)),
    ]
    assert "read as a manifest of NeMo" in capsys.readouterr().err
    texts = load_corpus([tmp_path / name], label_column="text")
    assert texts.labels == ("n", "y")


def test_bad_lines_are_named_and_the_others_are_taken(tmp_path):
    write_wavs(tmp_path, [0])
    good = {"audio_filepath": "0.wav", "label": "a"}
    lines = [
        good,
        "{broken\n",
        good | {"offset": -1, "duration": 1},
        good | {"duration": float("nan")},
        {"label": "a"},
        good | {"audio_filepath": "gone.wav"},
        "3\n",
    ]
    path = manifest(tmp_path / "x.json", lines)
    corpus = load_corpus([path])
    assert len(corpus.clips) == 1
    reasons = {bad.path: bad.reason for bad in corpus.rejected}
    assert reasons.keys() == {f"{path}, line {n}" for n in (2, 3, 4, 5, 7)} | {
        str(tmp_path / "gone.wav")
    }
    assert reasons[f"{path}, line 2"].startswith("not JSON (Expecting property name")
    assert reasons[f"{path}, line 3"].startswith("start = '-1'; allowed: seconds, 0 or more")
    assert reasons[f"{path}, line 5"] == "no path; fill it in, or drop the row"


def test_a_label_or_speaker_that_is_no_number_is_missing(tmp_path):
    """NaN is what pandas writes for what it does not know."""
    write_wavs(tmp_path, [0, 1])
    nan = float("nan")
    lines = [
        {"audio_filepath": "0.wav", "label": nan, "speaker": nan},
        {"audio_filepath": "1.wav", "label": "a", "speaker": nan},
    ]
    clips = load_corpus([manifest(tmp_path / "x.json", lines)]).clips
    assert [(clip.labels, clip.group) for clip in clips] == [((), ""), (("a",), "")]


def test_the_split_is_that_of_the_name(tmp_path):
    write_wavs(tmp_path, [0, 1])
    train = manifest(tmp_path / "train_manifest.json", [{"audio_filepath": "0.wav"}])
    dev = tmp_path / "dev_manifest.json.gz"
    dev.write_bytes(gzip.compress(b'{"audio_filepath": "1.wav"}\n'))
    assert [clip.split for clip in load_corpus([train, dev]).clips] == ["train", "val"]
