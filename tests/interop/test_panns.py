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


def slow_cnn14(state, images):
    """The published embedding of images (clip, 1, frame, mel), in evaluation mode."""

    def norm(name, x):
        parts = (
            state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, *parts)

    x = norm("bn0", images.transpose(1, 3)).transpose(1, 3)
    for number in range(1, 7):
        for layer in (1, 2):
            x = F.conv2d(x, state[f"conv_block{number}.conv{layer}.weight"], padding=1)
            x = norm(f"conv_block{number}.bn{layer}", x).relu()
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


@pytest.mark.parametrize("frames", [32, 33, 96, 97, 113, 127, 160])
def test_it_computes_what_the_foreign_model_computes_at_every_length(frames):
    state = drawn(cnn14(width=2, mels=32))
    encoder = CNN14(CNN14.Config(width=2, trim="pooling"), 32).double().eval()
    encoder.load_state_dict(convert(state, encoder).state)
    spectrogram = torch.randn(2, 32, frames, dtype=torch.float64)
    with torch.inference_mode():
        found = encoder(encoder.normalise(spectrogram, torch.tensor([frames] * 2))).cls[:, 0]
    expected = slow_cnn14(state, spectrogram.transpose(1, 2)[:, None])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
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
            "5 convolution blocks; CNN14 has 6",
        ),
    ],
)
def test_what_does_not_fit_says_what_it_is_and_which_flag_helps(shapes, message):
    with pytest.raises(ConfigError, match=message):
        convert(blank(shapes), CNN14(CNN14.Config(width=2), 32))
