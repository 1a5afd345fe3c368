"""SUPERB's head on a network that is trained whole: which head, whichever the recipe, and which clips choose."""

import pytest
from journeys.three_sounds import settings, write_corpus, write_run
from protocols.fine_tuned import evaluate, measured, results

from melpatch.checkpoint import load_weights
from melpatch.config import from_toml
from melpatch.training.config import RunConfig


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "pretrained", settings(depth=2))


@pytest.mark.parametrize("recipe", ["ssast_keywords", "finetune"])
def test_the_whole_network_is_trained_under_superbs_head(run, recipe, tmp_path):
    corpus = write_corpus(tmp_path / "sounds")
    more = (f"recipe={recipe}", "keep_runs=true", "--split-column", "fold", "--split", "0")
    record = evaluate("superb_finetune", run, corpus, tmp_path, "--steps 3 --evaluations 3", *more)
    folder = results(tmp_path) / "runs" / "0-0"
    head = from_toml(RunConfig, folder / "config.toml").objective
    assert (head.layers, head.projection, head.pooling) == ("mix", 256, "mean")
    before, after = (load_weights(each / "model.safetensors") for each in (run, folder))
    assert after["mix"].shape == (2,)
    assert after["projection.weight"].shape == (256, 16)
    trained = [name for name in before if "blocks" in name and name.endswith("weight")]
    assert not any((before[name] == after[name]).all() for name in trained)
    assert record["splits"] == [
        {"split": "0", "train_clips": 9, "val_clips": 3, "test_clips": 6}
    ]  # one clip of each class is held out
    assert [*measured(folder, "val_accuracy")] == [1, 2, 3]
    assert "unlike on the SUPERB leaderboard" in record["selection_rule"]
