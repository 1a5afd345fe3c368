"""A custom encoder is pretrained, then fine-tuned with layer-wise decay, from the command line."""

import pytest
import torch
from encoders.toy_hybrid import ToyHybrid
from journeys.three_sounds import SHORT, melpatch, write_corpus

from melpatch.checkpoint import load_weights
from melpatch.inference.model import load
from melpatch.training.param_groups import param_groups
from melpatch.training.start import load_run

KIND = "encoders.toy_hybrid:ToyHybrid"
STEPS = ("--steps", "2", "--front-end.n-mels", "32")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("sounds"))


@pytest.fixture(scope="module")
def pretrained(corpus, tmp_path_factory):
    """Return a run of MAE-AST with the toy encoder."""
    out = tmp_path_factory.mktemp("toy") / "pretrained"
    flags = ("--encoder", KIND, "--size", "nano", "--encoder.mixers", "3")
    melpatch("pretrain", "mae_ast", "--data", corpus, "--out", out, *flags, *SHORT, *STEPS)
    return out


@pytest.fixture(scope="module")
def classifier(corpus, pretrained, tmp_path_factory):
    """Return a run that fine-tunes it on shorter segments with a layer decay of 0.5."""
    out = tmp_path_factory.mktemp("toy") / "classifier"
    flags = ("--init", pretrained, "--layer-decay", "0.5", "--evaluations", "1")
    short = ("--seconds", "0.5", "--batch-size", "6", "--workers", "0", "--precision", "32-true")
    flags = (*flags, "--head-start", "random")
    melpatch("finetune", "--data", corpus, "--out", out, *flags, *short, "--steps", "2")
    return out


def test_pretraining_fits_the_positions_to_the_segments(pretrained):
    config, objective = load_run(pretrained)
    assert isinstance(objective.encoder, ToyHybrid)
    assert f'name = "{KIND}"' in (pretrained / "config.toml").read_text()
    assert config.encoder == ToyHybrid.Config.of_size("nano", mixers=3, horizon=13)


def test_fine_tuning_starts_from_the_pretrained_weights(pretrained, classifier):
    config, objective = load_run(classifier)
    assert config.encoder == ToyHybrid.Config.of_size("nano", mixers=3, horizon=6)
    assert config.train.layer_decay == 0.5
    # Two steps change the weights, but leave them close to the pretrained ones.
    before = load_weights(pretrained / "model.safetensors")
    for name, after in objective.encoder.state_dict().items():
        initial = before[f"encoder.{name}"][: len(after)]
        assert not torch.equal(after, initial), name
        torch.testing.assert_close(after, initial, atol=0.01, rtol=0)


def test_layer_decay_works_for_layers_of_any_name(classifier):
    config, objective = load_run(classifier)
    decay = config.train.layer_decay
    groups = param_groups(objective, weight_decay=0.1, layer_decay=decay, head_lr_scale=1.0)
    scales = {
        name.split(".")[1] + (name.split(".")[2] if "mixers" in name else ""): group["lr_scale"]
        for group in groups
        for name in group["names"]
        if name.startswith("encoder.")
    }
    first = dict.fromkeys(("texture", "fold", "pitch_code", "time_code", "registers"), 0.5**4)
    mixers = {"mixers0": 0.5**3, "mixers1": 0.5**2, "mixers2": 0.5}
    assert scales == {**first, **mixers, "calm": 1.0}
    undecayed = {name for group in groups if not group["weight_decay"] for name in group["names"]}
    assert {"encoder.pitch_code", "encoder.time_code", "encoder.registers"} <= undecayed


def test_the_classifier_predicts(classifier, corpus):
    model = load(classifier)
    (prediction,) = model.predict(corpus.parent / "low" / "0.wav")
    assert prediction.probabilities.keys() == {"high", "low", "noise"}
