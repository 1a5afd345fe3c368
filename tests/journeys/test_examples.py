"""The examples run as they say they do."""

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import torch
from forked import Forked
from journeys.three_sounds import (
    LABELS,
    SHORT,
    SMALL,
    melpatch,
    settings,
    write_corpus,
    write_run,
    write_sound,
)
from places import ROOT

from melpatch.cli import main
from melpatch.data.clip import Batch
from melpatch.recipes.base import recipe
from melpatch.training.config import build

EXAMPLES = ROOT / "examples"


def test_embed_folder_finds_what_sounds_alike(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "sounds"
    for label in LABELS:
        for number in range(3):
            write_sound(folder / label / f"{number}.wav", label, seed=number)
    (folder / "bad.wav").write_bytes(b"RIFF, but no more")
    run = write_run(tmp_path / "run", settings())
    monkeypatch.setattr(sys, "argv", ["embed_folder.py", str(run), str(folder)])
    runpy.run_path(str(EXAMPLES / "embed_folder.py"), run_name="__main__")
    told = capsys.readouterr()
    pairs = [tuple(map(Path, line.split("\t")[:2])) for line in told.out.splitlines()]
    assert len(pairs) == 9
    assert all(one != other for one, other in pairs)
    assert sum(one.parent == other.parent for one, other in pairs) >= 8  # whatever the weights
    assert "bad.wav: is not sound" in told.err


def with_examples():
    sys.path.insert(0, str(EXAMPLES))


def test_own_objective_is_pretrained_in_a_process_and_fine_tuned_from(
    tmp_path, monkeypatch, capsys
):
    corpus = write_corpus(tmp_path / "sounds")
    out = tmp_path / "denoise"
    words = [
        "pretrain",
        "own_objective:Denoise",
        "--data",
        corpus,
        "--out",
        out,
        "--steps",
        "30",
        "--evaluations",
        "1",
        "--log-every",
        "1",
    ]
    process = Forked([*words, "--objective.level", "0.1", *SHORT, *SMALL], prepare=with_examples)
    _, told = process.communicate()
    assert process.returncode == 0, told
    assert f"done: {out}" in told
    lines = [
        json.loads(line)
        for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 30
    assert losses[-1] < 0.9 * losses[0]

    monkeypatch.syspath_prepend(EXAMPLES)
    melpatch("show", out, "--json", "--trust-code")
    assert json.loads(capsys.readouterr().out)["objective"] == "Denoise"
    melpatch(
        "finetune",
        "--init",
        out,
        "--data",
        corpus,
        "--out",
        tmp_path / "tuned",
        "--steps",
        "1",
        "--trust-code",
        *SHORT,
    )
    assert (tmp_path / "tuned" / "model.safetensors").exists()


def test_own_objective_hears_no_padding_and_repeats_itself(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    config = replace(settings(), objective=recipe("own_objective:Denoise")("nano").objective)
    objective = build(config)
    waves, keys = torch.randn(2, 9000) * 0.1, torch.tensor([3, -5])
    short, long = 4000, 9000
    batch = Batch(waves, torch.tensor([short, long]), keys)
    alone = [
        objective(Batch(waves[row : row + 1, :size], torch.tensor([size]), keys[row : row + 1]), 4)
        for row, size in enumerate((short, long))
    ]
    together = objective(batch, 4)
    total = sum(one.loss * one.weight for one in alone) / sum(one.weight for one in alone)
    torch.testing.assert_close(together.loss, total, atol=1e-5, rtol=1e-5)
    assert objective(batch, 4).loss == together.loss
    assert objective(batch, 5).loss != together.loss


def test_an_objective_that_is_not_on_the_path_is_exit_code_2(tmp_path, capsys):
    assert (
        main(
            [
                "pretrain",
                "somebodys_objective:Denoise",
                "--data",
                str(tmp_path),
                "--out",
                str(tmp_path / "x"),
            ]
        )
        == 2
    )
    assert "cannot be imported: there is no module 'somebodys_objective'" in capsys.readouterr().err
