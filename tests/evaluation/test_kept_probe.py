"""A probe that is kept is a classifier like any other, with the score of its protocol."""

import numpy as np
import pytest
from journeys.three_sounds import settings, write_corpus, write_run

import melpatch
from melpatch.cli import main
from melpatch.errors import ConfigError
from melpatch.evaluation.evaluate import evaluate
from melpatch.inference.calibration import CALIBRATION


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """An encoder's run, a corpus, the record of its linear probe, and the run that was kept of it."""
    root = tmp_path_factory.mktemp("kept")
    corpus = write_corpus(root / "sounds")
    # Recordings are up to three windows long.
    run = write_run(root / "run", settings(seconds=0.5))
    records = evaluate(run, corpus, ["linear"], floors=False, keep=root / "probe")
    return run, corpus, records["linear"], root / "probe"


def test_a_kept_probe_has_the_score_of_its_protocol(kept):
    _, corpus, record, probe = kept
    again = evaluate(probe, corpus, floors=False)["as_trained"]
    assert again["value"] == record["value"]
    assert again["metrics"] == pytest.approx(record["metrics"], abs=1e-6)
    # The train split is known to it, and no scored clip is of that.
    assert again["scored_clips_trained_on"] == 0
    assert (
        evaluate(probe, corpus, split="train", floors=False)["as_trained"][
            "scored_clips_trained_on"
        ]
        == len(melpatch.load(probe).labels) * 3
    )


def test_it_predicts_long_recordings_from_their_whole_vector(kept):
    run, corpus, _, probe = kept
    model = melpatch.load(probe)
    sound = corpus.parent / "high" / "0.wav"
    vector = melpatch.load(run).embed(sound, pooling=model.default_pooling)
    assert np.array_equal(model.embed(sound), vector)
    (prediction,) = model.predict(sound)
    expected = model.calibration.probabilities(model.network.classify(vector))
    np.testing.assert_allclose([*prediction.probabilities.values()], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("protocols", "settings_", "message"),
    [
        (["knn"], {}, "--protocol linear, few_shot, attentive or prototype alone"),
        (["linear", "knn"], {}, "--protocol linear, few_shot, attentive or prototype alone"),
        (["few_shot"], {"k": 1}, "one probe, not 5"),
    ],
)
def test_only_one_linear_probe_can_be_kept(kept, tmp_path, protocols, settings_, message):
    run, corpus, *_ = kept
    with pytest.raises(ConfigError, match=message):
        evaluate(run, corpus, protocols, settings=settings_, floors=False, keep=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_finetune_can_learn_the_head_alone_in_seconds(kept, tmp_path, capsys):
    run, corpus, record, _ = kept
    out = tmp_path / "probe"
    words = ["finetune", "--init", run, "--data", corpus, "--out", out, "--head", "linear"]
    assert main([*map(str, words)]) == 0
    told = capsys.readouterr().err
    assert "a linear probe on" in told
    assert "accuracy on validation" in told
    assert evaluate(out, corpus, floors=False)["as_trained"]["value"] == record["value"]


@pytest.mark.parametrize(
    ("protocol", "flags"),
    [
        ("few_shot", {"k": 2}),
        ("attentive", {"heads": 4, "epochs": 3}),
        ("prototype", {"epochs": 3}),
    ],
)
def test_every_probe_of_the_kind_has_the_score_of_its_protocol(kept, tmp_path, protocol, flags):
    """Their recordings are up to three windows long, and are told as a whole."""
    run, corpus, *_ = kept
    out = tmp_path / "probe"
    scored = {"floors": False, "settings": flags, "seeds": [0], "out": tmp_path / "scores"}
    record = evaluate(run, corpus, [protocol], keep=out, **scored)[protocol]
    again = evaluate(out, corpus, floors=False)["as_trained"]
    assert again["value"] == record["value"]
    # Uncalibrated, and but for the half precision in which tokens are kept, all is the same.
    (out / CALIBRATION).unlink()
    again = evaluate(out, corpus, floors=False)["as_trained"]
    assert again["metrics"] == pytest.approx(record["metrics"], abs=1e-3)


@pytest.mark.parametrize("head", ["few_shot", "attentive", "prototype"])
def test_finetune_fits_any_of_them(kept, tmp_path, capsys, head):
    """Where nothing validates, a head that is trained gets clips that are held out."""
    run, corpus, *_ = kept
    out = tmp_path / "probe"
    words = ["finetune", "--init", run, "--data", corpus, "--out", out, "--head", head]
    assert main([*map(str, words)]) == 0
    record = evaluate(run, corpus, [head], floors=False, seeds=[0], out=tmp_path / "scores")[head]
    assert evaluate(out, corpus, floors=False)["as_trained"]["value"] == record["value"]


def test_a_kept_probe_is_shown_though_it_made_no_step(kept, capsys):
    assert main(["show", str(kept[-1])]) == 0
    assert "Classify" in capsys.readouterr().out
