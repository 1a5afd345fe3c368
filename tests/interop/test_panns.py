import pytest
import torch
import torch.nn.functional as F
from interop.inventories import blank, cnn14, drawn

from melpatch.encoders.cnn14 import CNN14
from melpatch.errors import ConfigError
from melpatch.interop.base import Reading
from melpatch.interop.panns import PANNs
from melpatch.weight_files import Weights


def convert(state, encoder):
    return PANNs().convert(Weights(state, {}), encoder, Reading())


SMALLER = {
    "cnn14": {},
    "cnn10": {"blocks": 4},
    "cnn6": {"blocks": 4, "convolutions": 1, "kernel": 5},
}


def slow_embedding(network, state, images):
    """The published embedding of images (clip, 1, frame, mel), in evaluation mode."""
    blocks = 6 if network == "cnn14" else 4

    def norm(name, x):
        parts = (
            state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, *parts)

    x = norm("bn0", images.transpose(1, 3)).transpose(1, 3)
    for number in range(1, blocks + 1):
        if network == "cnn6":
            x = F.conv2d(x, state[f"conv_block{number}.conv1.weight"], padding=2)
            x = norm(f"conv_block{number}.bn1", x).relu()
        else:
            for layer in (1, 2):
                x = F.conv2d(x, state[f"conv_block{number}.conv{layer}.weight"], padding=1)
                x = norm(f"conv_block{number}.bn{layer}", x).relu()
        # The last block of CNN14 alone does not halve its images.
        x = F.avg_pool2d(x, 2) if number < 6 else x
    x = x.mean(dim=3)
    x = x.max(dim=2).values + x.mean(dim=2)
    return F.linear(x, state["fc1.weight"], state["fc1.bias"]).relu()


def test_every_published_weight_has_its_place():
    shapes = cnn14()
    assert len(shapes) == 84
    assert PANNs().recognises(Weights(blank(shapes), {}))
    with torch.device("meta"):
        encoder = CNN14(CNN14.Config(trim="pooling"), 64)
    found = convert(blank(shapes), encoder)
    expected = {name: value.shape for name, value in encoder.state_dict().items()}
    assert {name: value.shape for name, value in found.state.items()} == expected
    assert found.notes == ["left out: fc_audioset, logmel_extractor, spectrogram_extractor"]


@pytest.mark.parametrize("network", SMALLER)
@pytest.mark.parametrize("frames", [32, 33, 96, 97, 113, 127, 160])
def test_it_computes_what_the_foreign_model_computes_at_every_length(frames, network):
    state = drawn(cnn14(width=2, mels=32, **SMALLER[network]))
    published = PANNs().published(Weights(state, {}), Reading())
    assert published.encoder == CNN14.Config(network=network, width=2, trim="pooling")
    encoder = CNN14(published.encoder, 32).double().eval()
    encoder.load_state_dict(convert(state, encoder).state)
    spectrogram = torch.randn(2, 32, frames, dtype=torch.float64)
    with torch.inference_mode():
        found = encoder(encoder.normalise(spectrogram, torch.tensor([frames] * 2))).cls[:, 0]
    expected = slow_embedding(network, state, spectrogram.transpose(1, 2)[:, None])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            cnn14(width=2, blocks=4),
            "these weights are of 'cnn10'; use --encoder.network cnn10",
        ),
        (cnn14(width=64), "width 64, but the encoder has 2; use --size base"),
        (cnn14(width=3), "width 3, but the encoder has 2; use --encoder.width 3"),
        (
            cnn14(width=2, mels=40),
            "trained on 40 mels, but the front end has 32; .*--front-end.n-mels 40",
        ),
        (
            {
                name: shape
                for name, shape in cnn14(width=2).items()
                if not name.startswith("conv_block5")
            },
            "5 blocks and 10 convolutions of 3 x 3; allowed: those of CNN14",
        ),
    ],
)
def test_what_does_not_fit_says_what_it_is_and_which_flag_helps(shapes, message):
    with pytest.raises(ConfigError, match=message):
        convert(blank(shapes), CNN14(CNN14.Config(width=2), 32))
