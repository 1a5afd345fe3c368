"""An evaluation that two processes share: each has the numbers of one that is alone, and there is one of every file."""

import json
import shutil

import numpy as np
import pytest
import torch
from journeys.three_sounds import LABELS, SHORT, read_table, settings, write_corpus, write_run
from two_processes import in_both

from melpatch.data.manifest import load_corpus
from melpatch.evaluation import report
from melpatch.evaluation.evaluate import evaluate
from melpatch.evaluation.frozen_features import FrozenFeatures
from melpatch.inference.corpus import infer_clips
from melpatch.inference.model import load

PROBES = ("knn", "linear", "attentive")
CHANGES = {"epochs": 1, "heads": 2}
FLAGS = {"flags": " ".join((*SHORT, "--steps", "2"))}


def evaluated(rank, folder):
    """What a process has of a corpus, one clip of which cannot be read and some of which have several windows."""
    model, corpus = load(folder / "encoder"), load_corpus([folder / "corpus.csv"])
    table = infer_clips(
        lambda batch: torch.stack([batch.wave.amax(1), batch.lengths.float()], dim=1),
        corpus.clips,
        sample_rate=8000,
        seconds=0.5,
        batch_size=3,
    )
    tokens = FrozenFeatures.of_model(model, folder / "features", seconds=0.5).tokens(corpus)
    data, out = folder / "corpus.csv", folder / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "_draw", lambda *_: None)  # pictures take longer than all else
        records = evaluate(folder / "encoder", data, PROBES, settings=CHANGES, out=out)
        records |= evaluate(folder / "classifier", data, out=out)
        records |= evaluate(folder / "encoder", data, "finetune", settings=FLAGS, out=out)
    return {
        "rows": torch.from_numpy(table.rows),
        "keys": [[clip.key for clip in found.clips] for found in (table, tokens)],
        "tokens": [tokens.batch([row])[0] for row in range(len(tokens.clips))],
        "rejected": [sorted({one.path for one in found.rejected}) for found in (table, tokens)],
        "records": json.dumps(records),
    }


def predictions(folder):
    found = {}
    for path in sorted((folder / "out").glob("*/predictions.csv")):
        lines = read_table(path)
        found[path.parent.name] = (
            [line["path"] for line in lines],
            np.array([[float(line[name]) for name in LABELS] for line in lines]),
        )
    return found


def test_two_processes_evaluate_as_one(tmp_path, monkeypatch):
    write_corpus(tmp_path)
    write_run(tmp_path / "encoder", settings())
    write_run(tmp_path / "classifier", settings(LABELS))
    corpus = load_corpus([tmp_path / "corpus.csv"])
    corpus.clips[-1].path.write_bytes(b"RIFF, but no more")
    alone, ours = evaluated(0, tmp_path), predictions(tmp_path)
    for made in ("out", "features", "encoder/features"):
        shutil.rmtree(tmp_path / made)
    both = in_both(evaluated, tmp_path, monkeypatch)
    theirs = predictions(tmp_path)
    assert both[0]["records"] == both[1]["records"]
    for one in both:
        for name in ("keys", "rejected"):
            assert one[name] == alone[name]
        torch.testing.assert_close(one["rows"], alone["rows"])
        torch.testing.assert_close(one["tokens"], alone["tokens"], rtol=0, atol=2e-3)
    assert ours.keys() == theirs.keys()
    assert len(ours) == 5
    for name in ours:
        assert ours[name][0] == theirs[name][0]
        np.testing.assert_allclose(ours[name][1], theirs[name][1], atol=5e-3)
    for name, record in json.loads(both[0]["records"]).items():
        assert (record["world_size"], json.loads(alone["records"])[name]["world_size"]) == (2, 1)
    left = {
        path.name
        for folder in (tmp_path / "encoder" / "features").iterdir()
        for path in folder.iterdir()
    }
    assert left == {"about.json", "values"}
