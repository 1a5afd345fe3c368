"""Labels of ``melpatch page`` are read as any other data: the answers that stand."""

from tiny_wav import write_wavs

from melpatch.data.answers import HEADER, Answer, question
from melpatch.data.manifest import load_corpus


def test_the_answers_that_stand_are_clips(tmp_path, capsys):
    write_wavs(tmp_path, [0, 1, 2])
    paths = [str(tmp_path / f"{number}.wav") for number in range(3)]
    answers = [(0, "low", "yes"), (1, "low", "no"), (2, "low", "yes"), (2, "low", "undo")]
    rows = [
        Answer(question(paths[number], 0.05, 0.15, label), "train", "ann", "", answer).cells()
        for number, label, answer in answers
    ]
    lines = [",".join(row) for row in [HEADER, *rows, ["torn"]]]
    (tmp_path / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    corpus = load_corpus([tmp_path / "labels.csv"])
    assert [(str(c.path), c.start, c.duration, c.labels, c.split) for c in corpus.clips] == [
        (paths[0], 0.05, 0.1, ("low",), "train"),
        (paths[1], 0.05, 0.1, ("background",), "train"),
    ]
    assert [clip.path for clip in corpus.rejected] == [f"{tmp_path / 'labels.csv'}, stretch 6"]
    assert "4 answers come to 2 labelled stretches" in capsys.readouterr().err
