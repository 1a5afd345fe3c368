"""BEATs against numbers of the published code, in a small geometry."""

import pytest
import torch
from golden.published_weights import folder, numbers, published_file

from melpatch.audio.logmel import LogMel
from melpatch.data.clip import Batch
from melpatch.encoders.beats import BEATs
from melpatch.interop.base import Reading, published_settings, recognise
from melpatch.nn.grid import Places
from melpatch.training.foreign import open_foreign
from melpatch.weight_files import read_weights

ROWS, COLUMNS = 8, 7


def opened(path, quiet=False):
    """The encoder and the front end that the file gives by itself."""
    source = published_file("beats", path, quiet)
    _, published = published_settings(source)
    weights = read_weights(source)
    encoder = BEATs(published.encoder, published.front_end.n_mels).eval()
    converted = recognise(weights).convert(weights, encoder, Reading())
    encoder.load_state_dict(converted.state)
    return encoder, published.front_end


@pytest.fixture(scope="module")
def beats(tmp_path_factory):
    return opened(tmp_path_factory.mktemp("beats"))


@pytest.fixture(scope="module")
def expected():
    return numbers("beats", "outputs")


def in_time(values):
    """Our tokens (clip, token, ...) in the published order, column by column."""
    return values.unflatten(1, (ROWS, COLUMNS)).transpose(1, 2).flatten(1, 2)


def ours(values):
    """Published tokens (clip, token, ...) in our order, row by row."""
    return values.unflatten(1, (COLUMNS, ROWS)).transpose(1, 2).flatten(1, 2)


def close(found, expected, tolerance):
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


@torch.inference_mode()
def test_every_step_is_that_of_the_published_code(beats, expected):
    encoder, _ = beats
    spectrogram = expected["input"].mT
    encoded = encoder(spectrogram, layers=True)
    close(in_time(encoder.embed(spectrogram)), expected["embedded"], 2.9e-4)
    for number, layer in enumerate(encoded.layers):
        close(in_time(layer), expected["layers"][number], 2.9e-4)
    close(in_time(encoded.patches), expected["tokens"], 2.9e-4)
    close(encoded.patches.mean(dim=1), expected["features_mean"], 3.2e-5)
    numbered = torch.arange(ROWS * COLUMNS)[None]
    bias = encoder.position_bias(numbered)[0]
    close(bias, expected["position_bias"], 2.6e-6)
    assert torch.equal(in_time(Places(numbered, COLUMNS).in_time(ROWS)), numbered)


@torch.inference_mode()
def test_tokens_that_the_published_rule_makes_padding_influence_nothing_here_either(
    beats, expected
):
    """Their number decides there; the mask here is of whole columns, but may be any."""
    encoder, _ = beats
    padding = expected["padding_of_tokens"]
    assert padding.any()
    found = encoder(expected["input"].mT, ours(~padding)).patches
    close(in_time(found)[~padding], expected["padded_tokens"][~padding], 2.9e-4)


@torch.inference_mode()
def test_the_epsilon_of_the_norms_is_that_of_the_weights(tmp_path):
    encoder, front_end = opened(tmp_path, quiet=True)
    wave = numbers("beats", "input")["wave"].float().double()
    found = encoder.double()(LogMel(front_end)(wave)).patches
    close(in_time(found), numbers("beats", "quiet")["tokens"].double(), 1.6e-7)


def test_the_front_end_is_that_of_the_published_code(beats, expected):
    _, front_end = beats
    found = LogMel(front_end)(numbers("beats", "input")["wave"].float())
    close(found, expected["input"].mT, 4.4e-4)


@torch.inference_mode()
def test_the_classifier_of_a_fine_tuned_file_is_that_of_the_published_code(expected):
    model = open_foreign(str(folder("beats") / "checkpoint_finetuned.pt"))
    waves = numbers("beats", "input")["wave"].float()
    batch = Batch(waves, torch.tensor([20000, 20000]), torch.arange(2))
    objective = model.objective.eval()
    logits = objective.logits(objective.features(batch))
    close(logits.sigmoid(), expected["scores"], 1e-5)
    assert len(model.config.labels) == 6
    assert model.config.objective.multi_label
