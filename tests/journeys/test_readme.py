"""The commands of the README and of the pages in docs/, run line by line on a small corpus, and the README's Python."""

import re
import shlex
import shutil

import pytest
import torch
from interop import inventories
from journeys.three_sounds import melpatch, wave, write_corpus, write_folder, write_sound
from places import ROOT

from melpatch import registry
from melpatch.encoders.cnn14 import CNN14
from melpatch.encoders.vit import ViT

README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))
SMALL = {
    "pretrain": (
        "--size",
        "nano",
        "--steps",
        "3",
        "--seconds",
        "1",
        "--batch-size",
        "6",
        "--workers",
        "0",
    ),
    "finetune": ("--steps", "3", "--seconds", "1", "--batch-size", "6", "--workers", "0"),
    "bench": (
        "--size",
        "nano",
        "--batches",
        "2",
        "--seconds",
        "1",
        "--batch-size",
        "6",
        "--workers",
        "0",
    ),
    "compare": ("--size", "nano", "--steps", "2", "--protocol", "knn", "--only", "SSAST"),
}
WALK = ["prepare", "pretrain", "finetune", "evaluate", "predict", "embed", "pretrain", "show"]


def blocks(page, language):
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def run(page):
    """Run a page's commands, small and short; return their names."""
    lines = [
        line for line in "".join(blocks(page, "sh")).splitlines() if line.startswith("melpatch ")
    ]
    walked = [shlex.split(line, comments=True) for line in lines]
    for words in walked:
        kept = [
            word
            for i, word in enumerate(words[1:])
            if not {"--size", "--epochs"} & {word, words[i]}
        ]
        start = (
            words[words.index("--encoder-from" if "--encoder-from" in words else "--init") + 1]
            if words[1] == "finetune"
            else ""
        )
        foreign = words[1] == "finetune" and not start.startswith("runs/")
        melpatch(*kept, *SMALL.get(words[1], ()), *(("--size", "nano") if foreign else ()))
    return [words[1] for words in walked]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with what the documents speak of: recordings, labels, other people's weights."""
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "recordings")
    table = write_corpus(tmp_path / "labelled")
    shutil.copytree(table.parent, tmp_path, dirs_exist_ok=True)
    shutil.copy(tmp_path / "corpus.csv", tmp_path / "labels.csv")
    write_sound(tmp_path / "new_recordings" / "dusk.flac", "noise", 2.5)
    write_sound(tmp_path / "dawn.flac", "high", 2.5)
    nano = ViT.Config.of_size("nano")
    deit = inventories.timm(nano.embed_dim, nano.depth, patches=196, distilled=True)
    cnn14 = inventories.cnn14(CNN14.Config.of_size("nano").width)
    for name, shapes in (("deit.pth", deit), ("Cnn14_mAP=0.431.pth", cnn14)):
        state = {key: value.float() for key, value in inventories.drawn(shapes).items()}
        torch.save({"model": state}, tmp_path / name)
    return tmp_path


def test_the_walk_and_the_python_run_as_they_are_written(place):
    (place / "corpus.csv").unlink()
    assert run(README)[: len(WALK)] == WALK
    assert (place / "pictures" / "classes.png").exists()
    assert (place / "predictions.csv").exists()
    assert (place / "embeddings.npz").exists()
    (python,) = blocks(README, "python")
    exec(compile(python, "README.md", "exec"), {"samples": wave(rate=44100)})


def test_the_table_of_protocols_is_whole_and_true():
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    there = {name: registry.find("protocols", name).version for name in registry.names("protocols")}
    assert {name: int(version) for name, version in rows} == there


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_a_pages_commands_run_as_they_are_written(place, page):
    assert run(page)
