"""Label tracks of Audacity are about the sound of their name."""

import pytest
from tiny_wav import write_wavs

from melpatch.data.manifest import load_corpus
from melpatch.errors import DataError


def test_stretches_of_the_sound_beside(tmp_path):
    write_wavs(tmp_path, [0])
    lines = [
        "0.050000\t0.150000\twren",
        "\\\t100.0\t2000.0",
        "0.1\t0.1\tpoint",
        "0.000000\t0.050000",
        "x",
    ]
    (tmp_path / "0.txt").write_text("\n".join(lines), encoding="utf-8")
    corpus = load_corpus([tmp_path / "0.txt"])
    assert [(clip.start, clip.duration, clip.labels) for clip in corpus.clips] == [
        (0.05, 0.1, ("wren",)),
        (0.0, 0.05, ()),
    ]
    reasons = [clip.reason for clip in corpus.rejected]
    assert "a point in time" in reasons[0]
    assert "start, end and label" in reasons[1]


def test_a_track_without_its_sound_says_so(tmp_path):
    write_wavs(tmp_path, [0])
    (tmp_path / "gone.txt").write_text("0.0\t1.0\ta\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"no sound gone\.\* lies beside"):
        load_corpus([tmp_path / "gone.txt"])
