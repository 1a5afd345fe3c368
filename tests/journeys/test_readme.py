"""The README's walk, run line by line on a small corpus, and its Python."""

import re
import shlex
import shutil

from journeys.three_sounds import melpatch, wave, write_corpus, write_folder, write_sound
from places import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
SMALL = {
    "pretrain": ("--size", "nano", "--steps", "3", "--seconds", "1", "--batch-size", "6", "--workers", "0"),
    "finetune": ("--steps", "3", "--seconds", "1", "--batch-size", "6", "--workers", "0"),
}


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_walk_and_the_python_run_as_they_are_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "recordings")
    table = write_corpus(tmp_path / "labelled")
    shutil.copytree(table.parent, tmp_path, dirs_exist_ok=True)
    (tmp_path / "corpus.csv").rename(tmp_path / "labels.csv")
    write_sound(tmp_path / "new_recordings" / "dusk.flac", "noise", 2.5)
    write_sound(tmp_path / "dawn.flac", "high", 2.5)
    walked = [shlex.split(line) for line in "".join(blocks("sh")).splitlines() if line.startswith("melpatch ")]
    for words in walked:
        kept = [word for i, word in enumerate(words[1:]) if not {"--size", "--epochs"} & {word, words[i]}]
        melpatch(*kept, *SMALL.get(words[1], ()))
    walk = ["prepare", "pretrain", "finetune", "evaluate", "predict", "embed"]
    assert [words[1] for words in walked] == [*walk, "pretrain", "show"]
    assert (tmp_path / "pictures" / "classes.png").exists()
    assert (tmp_path / "predictions.csv").exists()
    assert (tmp_path / "embeddings.npz").exists()
    (python,) = blocks("python")
    exec(compile(python, "README.md", "exec"), {"samples": wave(rate=44100)})
