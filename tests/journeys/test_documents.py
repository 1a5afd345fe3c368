"""README and every page of docs/ run as they are written, on a small corpus."""

import importlib.util
import re
import shlex
import shutil
import sys
from typing import NamedTuple

import pytest
import torch
from commands.test_compare import Here
from interop import inventories
from journeys.three_sounds import melpatch, write_corpus, write_folder, write_sound
from places import ROOT
from two_processes import fork_workers

from melpatch import cli, registry
from melpatch.data import packing, scan
from melpatch.encoders.cnn14 import CNN14
from melpatch.encoders.vit import ViT
from melpatch.evaluation import report
from melpatch.workflows import budget
from melpatch.workflows.budget import Costs

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(sh|python)(?: title=\"([\w.]+)\")?\n(.*?)^```", re.DOTALL | re.MULTILINE)
SHORT = ["--seconds", "1", "--batch-size", "8", "--workers", "0"]
FEW = ["--steps", "2", "--evaluations", "1", *SHORT]
SMALL = {
    "pretrain": ["--size", "nano", "--stats-clips", "4", *FEW],
    "finetune": FEW,
    "bench": ["--size", "nano", "--batches", "2", *SHORT],
    "evaluate": ["--no-floors"],
    "fit-embedding": ["--dim", "3"],
    "index": ["--window", "1", "--hop", "0.5"],
    "compare": [
        "--size",
        "nano",
        "--steps",
        "2",
        "--protocol",
        "knn",
        "--only",
        "SSAST",
        "--no-floors",
    ],
}
"""Flags that make a documented command small; they come last, and so win."""


SELECTIONS = """\
Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tBegin Path\tSpecies
1\tSpectrogram 1\t1\t1.5\t3.0\t500\t4000\tdawn.flac\trobin
"""
"""A selection table, as Raven writes one."""


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    title: str
    text: str


def blocks(page):
    return [Block(*match) for match in FENCE.findall(page.read_text(encoding="utf-8"))]


def commands(block):
    """Return the melpatch commands of a shell block as lists of words."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("melpatch ")]


def run_command(words):
    """Run a documented command, small and short."""
    name = words[1]
    kept = without_flags(words[1:], "--size", "--epochs", "--protocol" if name == "compare" else "")
    if words[1:3] == ["pretrain", "auto"]:
        kept = [*without_flags(kept, "--budget"), "--budget", "20s"]
        melpatch(*kept)
        return
    # tests/commands/test_push.py does, with a stand-in for the Hub; tests/page/ serves the page.
    if name in ("push", "page"):
        return
    if "onnx" in words and importlib.util.find_spec("onnxruntime") is None:
        return
    if "--quantize" in words:
        # Each export takes seconds; that of this kind is tested with its target.
        cli.parse(words[1], words[2:])
        return
    small = list(SMALL.get(name, []))
    if words[1:3] == ["pretrain", "asit"]:  # whose views last six seconds
        small += ["--objective.view-seconds", "0.6"]
    deep = ("maskspec", "audiomae", "m2d", "matpac_plusplus")
    if name == "pretrain" and words[2] in deep:  # 8 blocks of 512
        small += ["--objective.decoder.dim", "32", "--objective.decoder.depth", "1"]
    if name == "finetune" and not starts_from_run(words):
        small += ["--size", "nano"]
    convolutional = {"cnn14", "byol_a", "byol_a_short"} & set(words)
    if "--size" in small and name != "compare" and not convolutional:
        small += ["--encoder.depth", "1"]
    melpatch(*kept, *small)


def without_flags(words, *flags):
    """Return words without these flags and their single values."""
    kept = []
    skip = False
    for word in words:
        if not skip and word not in flags:
            kept.append(word)
        skip = word in flags
    return kept


def starts_from_run(words):
    """Whether a fine-tuning command takes its encoder's settings from a run."""
    flag = "--encoder-from" if "--encoder-from" in words else "--init"
    return words[words.index(flag) + 1].startswith("runs/")


def run_page(page, folder, monkeypatch):
    """Run the blocks of a page in order; return the names of its commands."""
    ran = []
    names = {}
    monkeypatch.syspath_prepend(str(folder))
    for block in blocks(page):
        if block.language == "sh":
            for words in commands(block):
                run_command(words)
                ran.append(words[1])
        elif block.title:
            (folder / block.title).write_text(block.text, encoding="utf-8")
        else:
            exec(compile(block.text, page.name, "exec"), names)
    return ran


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with what the documents speak of: recordings, labels, other people's weights."""
    folder = tmp_path_factory.mktemp("documents")
    write_folder(folder / "recordings")
    table = write_corpus(folder / "labelled")
    shutil.copytree(table.parent, folder, dirs_exist_ok=True)
    shutil.copy(folder / "corpus.csv", folder / "labels.csv")
    write_sound(folder / "new_recordings" / "dusk.flac", "noise", 2.5)
    write_sound(folder / "dawn.flac", "high", 16.0)
    (folder / "dawn.Table.1.selections.txt").write_text(SELECTIONS, encoding="utf-8")
    registry.find("datasets", "esc50").fake(folder / "ESC-50-master")
    # What can be made in minutes is here already, and small.
    for name in registry.names("datasets"):
        card = registry.find("datasets", name)
        if card.make is not None:
            card.fake(folder / name)
    nano = ViT.Config.of_size("nano")
    deit = inventories.timm(nano.embed_dim, 1, patches=196, distilled=True)
    cnn14 = inventories.cnn14(CNN14.Config.of_size("nano").width)
    for name, shapes in (("deit.pth", deit), ("Cnn14_mAP=0.431.pth", cnn14)):
        drawn = inventories.drawn(shapes).items()
        state = {key: value.float() if value.is_floating_point() else value for key, value in drawn}
        torch.save({"model": state}, folder / name)
    return folder


@pytest.fixture
def place(written, tmp_path, monkeypatch):
    """A copy of that folder for one page, as the working directory."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    # Pictures of scores take longer than all else; the tests of evaluate draw them.
    monkeypatch.setattr(report, "_draw", lambda *_: None)
    # A budget pays for some steps, however fast the machine is.
    costs = Costs(step=4.0, evaluation=1.0, save=1.0, start=1.0)
    monkeypatch.setattr(budget, "measure", lambda *_: costs)
    # The commands of a comparison in this process, and workers forked: both start faster.
    monkeypatch.setattr("melpatch.comparison.work.Subprocesses", Here)
    fork_workers(scan, monkeypatch)
    fork_workers(packing, monkeypatch)
    yield tmp_path
    sys.modules.pop("my_objective", None)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_a_page_runs_as_it_is_written(page, place, monkeypatch):
    if "--out corpus.csv" in page.read_text(encoding="utf-8"):
        (place / "corpus.csv").unlink()  # which the first command writes
    ran = run_page(page, place, monkeypatch)
    if page == README:
        expected = ["prepare", "pretrain", "finetune", "evaluate", "report"]
        expected += ["predict", "embed", "index", "search", "show"]
        assert ran[: len(expected)] == expected
        for output in ("pictures/reconstruction.png", "predictions.csv", "embeddings.npz"):
            assert (place / output).exists()


def test_the_table_of_protocols_is_complete_and_true():
    text = (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", text, re.MULTILINE)
    versions = {
        name: registry.find("protocols", name).version for name in registry.names("protocols")
    }
    assert {name: int(version) for name, version in rows} == versions


@pytest.mark.parametrize(
    ("folder", "page"),
    [
        ("objectives", "docs/objectives/index.md"),
        ("datasets", "docs/datasets.md"),
        ("commands", "docs/reference/commands.md"),
    ],
)
def test_a_page_names_every_piece(folder, page):
    text = (ROOT / page).read_text(encoding="utf-8")
    missing = [
        name
        for name in registry.names(folder)
        if not re.search(rf"`(melpatch )?{name.replace('_', '[_-]')}\b", text)
    ]
    assert missing == []


def test_every_page_is_in_the_navigation():
    site = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    pages = [str(page.relative_to(ROOT / "docs")) for page in PAGES if page != README]
    assert [page for page in pages if f'"{page}"' not in site] == []
