"""CNN14 equals the published network, alone and in padded batches."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from melpatch.encoders.cnn14 import CNN14
from melpatch.encoders.vit import ViT
from melpatch.errors import ConfigError

SIZES = ["nano", "mini", "tiny", "small", "base", "large"]
N_MELS = 40  # halved five times, twice with a remainder: 20, 10, 5, 2, 1


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(n_mels=N_MELS, **settings):
    """Return a narrow CNN14 whose norms are not the initial ones, so that 0 is not mapped to 0."""
    torch.manual_seed(0)
    cnn = CNN14(
        CNN14.Config(**{"width": 2, "dropout": 0.0, "neck_dropout": 0.0} | settings), n_mels
    ).double()
    for name, value in cnn.state_dict().items():
        if "bn" in name and value.ndim:
            value.copy_(noise(*value.shape, seed=len(name)).abs() + 0.5)
    return cnn.eval()


class Norm(nn.BatchNorm2d):
    """Batch norm written out, since torch 2.13 gets some gradients on a CPU wrong."""

    def forward(self, x):
        mean = self.running_mean
        variance = self.running_var
        if self.training:
            values = x.transpose(0, 1).flatten(1)
            mean = values.mean(dim=1)
            variance = values.var(dim=1, correction=0)
            self.running_mean.lerp_(mean.detach(), 0.1)
            self.running_var.lerp_(values.var(dim=1).detach(), 0.1)
            self.num_batches_tracked += 1
        # Statistics and parameters are one number per channel; x is (clip, channel, frame, mel).
        deviation = (variance + 1e-5).sqrt()
        normalised = (x - mean[:, None, None]) / deviation[:, None, None]
        return normalised * self.weight[:, None, None] + self.bias[:, None, None]


class Published(nn.Module):
    """The published network, written out: images (frame, mel), clips of one length, no mask."""

    def __init__(self, cnn):
        super().__init__()
        self.bn0 = Norm(cnn.bn0.num_features)
        self.neck = nn.Linear(cnn.embed_dim, cnn.embed_dim)
        self.blocks = nn.ModuleList()
        for block in cnn.blocks:
            channels, channels_in = block.conv1.weight.shape[:2]
            ours = nn.Module()
            ours.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
            ours.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            ours.bn1 = Norm(channels)
            ours.bn2 = Norm(channels)
            self.blocks.append(ours)
        transposed = {
            name: value.mT if "conv" in name else value for name, value in cnn.state_dict().items()
        }
        self.double().load_state_dict(transposed)
        self.train(cnn.training)

    def forward(self, spectrogram):
        """Return the output of each block, (clip, channel, frame, mel), and the embedding."""
        x = self.bn0(spectrogram.mT[:, None].transpose(1, 3)).transpose(1, 3)
        outputs = []
        for block in self.blocks:
            x = F.relu(block.bn1(block.conv1(x)))
            x = F.relu(block.bn2(block.conv2(x)))
            x = x if block is self.blocks[-1] else F.avg_pool2d(x, kernel_size=(2, 2))
            outputs.append(x)
        return outputs, F.relu(self.neck(overall(x)))


def overall(x):
    """Return the maximum plus the mean over time of the mean over frequency."""
    x = x.mean(dim=3)
    return x.max(dim=2).values + x.mean(dim=2)


def encode(cnn, spectrogram, lengths=None, layers=False):
    """Return the output that an objective gets, for clips of these lengths or unpadded."""
    width = spectrogram.shape[2]
    if lengths is None:
        frames = torch.full((len(spectrogram),), width)
        return cnn(cnn.normalise(spectrogram, frames), None, layers)
    valid = cnn.grid.valid(lengths, cnn.grid.columns(width))
    return cnn(cnn.normalise(spectrogram, lengths), valid, layers)


@pytest.mark.parametrize("mode", [True, False])
def test_outputs_and_statistics_equal_the_published_network(mode):
    cnn = build().train(mode)
    spectrogram = noise(3, N_MELS, 96)
    slow = Published(cnn)
    outputs, embedding = slow(spectrogram)
    encoded = encode(cnn, spectrogram, layers=True)
    torch.testing.assert_close(encoded.patches, outputs[-1].mean(dim=3).mT, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(encoded.cls, embedding[:, None], rtol=1e-9, atol=1e-12)
    assert encoded.cls.any()
    for layer, output in zip(encoded.layers, outputs, strict=True):
        columns = [part.mean(dim=(2, 3)) for part in output.chunk(3, dim=2)]
        torch.testing.assert_close(
            layer, torch.stack([overall(output), *columns], dim=1), rtol=1e-9, atol=1e-12
        )
    # The running statistics of training are equal too.
    for name, value in slow.state_dict().items():
        torch.testing.assert_close(
            cnn.state_dict()[name], value.mT if "conv" in name else value, rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("n_mels", [40, 64])
@pytest.mark.parametrize("columns", [1, 2])
def test_gradients_equal_the_published_network(n_mels, columns):
    cnn = build(n_mels).train()
    spectrogram = noise(3, n_mels, 32 * columns)
    slow = Published(cnn)
    outputs, embedding = slow(spectrogram)
    (outputs[-1].mean(dim=3).pow(3).sum() + embedding.pow(3).sum()).backward()
    encoded = encode(cnn, spectrogram)
    (encoded.patches.pow(3).sum() + encoded.cls.pow(3).sum()).backward()
    for name, parameter in slow.named_parameters():
        gradient = parameter.grad.mT if "conv" in name else parameter.grad
        error = (cnn.get_parameter(name).grad - gradient).abs().max()
        assert error <= 1e-9 * gradient.abs().max(), name


@pytest.mark.parametrize("network", ["cnn14", "cnn10", "cnn6"])
@pytest.mark.parametrize("trim", ["before", "pooling"])
def test_a_clip_of_any_length_is_encoded_the_same_alone_and_in_a_batch(trim, network):
    cnn = build(32, width=1, trim=trim, network=network)
    lengths = torch.arange(1, 130, 3)
    spectrogram = noise(len(lengths), 32, 140)
    spectrogram *= (torch.arange(140) < lengths[:, None])[:, None]
    valid = cnn.grid.valid(lengths, cnn.grid.columns(140))
    together = encode(cnn, spectrogram, lengths)
    for clip, own in enumerate(lengths.tolist()):
        alone = encode(cnn, spectrogram[clip : clip + 1, :, :own])
        torch.testing.assert_close(
            together.patches[clip, valid[clip]], alone.patches[0], rtol=1e-9, atol=1e-12
        )
        torch.testing.assert_close(together.cls[clip], alone.cls[0], rtol=1e-9, atol=1e-12)
    assert not together.patches[~valid].any()


def test_padding_does_not_change_training():
    """A padded batch of one length gives the gradients and statistics of the unpadded batch."""
    results = []
    for pad in (0, 64):
        cnn = build().train()
        spectrogram = F.pad(noise(3, N_MELS, 64), (0, pad), value=7.0)
        encoded = encode(cnn, spectrogram, torch.tensor([64, 64, 64]) if pad else None)
        (encoded.patches.pow(3).sum() + encoded.cls.pow(3).sum()).backward()
        gradients = [parameter.grad for parameter in cnn.parameters()]
        results.append([encoded.patches[:, :2], encoded.cls, *gradients, *cnn.buffers()])
    for plain, padded in zip(*results, strict=True):
        torch.testing.assert_close(padded, plain, rtol=1e-6, atol=1e-9)


def test_leftover_frames_are_cut_and_a_short_clip_is_padded_with_zeros():
    cnn = build()
    spectrogram = noise(2, N_MELS, 95)
    assert torch.equal(cnn(spectrogram).patches, cnn(spectrogram[..., :64]).patches)
    assert torch.equal(
        cnn(spectrogram[..., :20]).patches, cnn(F.pad(spectrogram[..., :20], (0, 12))).patches
    )


def test_leftover_frames_count_where_the_poolings_drop_them():
    """As in the published network; the layers have as many columns as the last one."""
    cnn = build(trim="pooling")
    spectrogram = noise(2, N_MELS, 95)
    encoded = cnn(spectrogram, layers=True)
    assert [layer.shape[1] for layer in encoded.layers] == [3] * 6
    assert not torch.allclose(encoded.cls, cnn(spectrogram[..., :64]).cls)
    assert torch.equal(cnn(spectrogram[..., :64]).cls, build()(spectrogram[..., :64]).cls)


def test_both_dropouts_are_active_in_training_only():
    spectrogram = noise(2, N_MELS, 64)
    for settings, patches_change in (({"dropout": 0.5}, True), ({"neck_dropout": 0.5}, False)):
        cnn = build(**settings).train()
        first = cnn(spectrogram)
        second = cnn(spectrogram)
        assert torch.equal(first.patches, second.patches) != patches_change
        assert not torch.equal(first.cls, second.cls)
        assert torch.equal(build(**settings)(spectrogram).cls, build()(spectrogram).cls)


def test_initial_weights_are_xavier_uniform_with_identity_norms():
    cnn = CNN14(CNN14.Config(width=8), N_MELS)
    for name, value in cnn.named_parameters():
        if value.ndim == 1:
            assert torch.equal(
                value, torch.full_like(value, float("bn" in name and "weight" in name))
            ), name
            continue
        fans = value.shape[0] + value.shape[1]
        bound = math.sqrt(6 / (fans * math.prod(value.shape[2:])))
        assert value.abs().max() <= bound, name
        assert float(value.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.15), name


def count(encoder):
    return sum(parameter.numel() for parameter in encoder.parameters())


@pytest.mark.parametrize(
    ("network", "published"),
    [("cnn14", 80_753_615), ("cnn10", 5_219_279), ("cnn6", 4_837_455)],
)
def test_base_has_the_published_number_of_parameters(network, published):
    """Including the linear layer for 527 classes."""
    with torch.device("meta"):
        cnn = CNN14(CNN14.Config.of_size("base", network=network), 64)
    assert count(cnn) + 527 * (cnn.embed_dim + 1) == published


@pytest.mark.parametrize("name", SIZES)
def test_each_size_has_about_as_many_parameters_as_the_vit_of_that_size(name):
    with torch.device("meta"):
        assert count(CNN14(CNN14.Config.of_size(name), 64)) == pytest.approx(
            count(ViT(ViT.Config.of_size(name), 128)), rel=0.1
        )


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"width": 0}, "width = 0; allowed: 1 or more"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"neck_dropout": -0.1}, "neck_dropout = -0.1"),
        ({"n_mels": 31}, "n_mels = 31; allowed: 32 or more, since .* halves them 5 times"),
        ({"n_mels": 15, "network": "cnn6"}, "n_mels = 15; allowed: 16 or more"),
    ],
)
def test_wrong_settings_are_named(settings, named):
    with pytest.raises(ConfigError, match=named):
        build(**settings)


def test_another_number_of_mels_is_refused():
    with pytest.raises(ConfigError, match="n_mels = 64; allowed: 40"):
        build()(noise(1, 64, 64))


class ClassToken(nn.Module):
    """The embedding of an encoder, as a network of one input and one output."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, spectrogram):
        return self.encoder(spectrogram).cls


@pytest.mark.parametrize("trim", ["before", "pooling"])
def test_one_graph_takes_any_number_of_clips_and_frames(trim):
    network = ClassToken(build(trim=trim))
    dynamic = torch.export.Dim.DYNAMIC
    example = (noise(2, N_MELS, 100),)
    shapes = ({0: dynamic, 2: dynamic},)
    recorded = torch.export.export(network, example, dynamic_shapes=shapes, strict=False)
    given = noise(3, N_MELS, 133)
    torch.testing.assert_close(recorded.module(check_guards=False)(given), network(given))


def test_a_batch_without_clips_has_tokens_of_none():
    """That of a process that can read none of its own."""
    encoded = build()(torch.zeros(0, N_MELS, 96, dtype=torch.float64), layers=True)
    assert encoded.patches.shape == (0, 3, 64)
    assert [layer.shape[2] for layer in encoded.layers] == [2, 4, 8, 16, 32, 64]
