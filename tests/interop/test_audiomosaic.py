"""AudioMosaic has norms after its patch projection and before its blocks, and none after them."""

import pytest
import torch
import torch.nn.functional as F
from interop.inventories import drawn, timm

from melpatch.encoders.vit import ViT
from melpatch.errors import ConfigError
from melpatch.interop.audiomosaic import AudioMosaic
from melpatch.interop.base import Reading, recognise
from melpatch.weight_files import Weights

HEADS = Reading(num_heads=2)
COLUMNS = 3
NORMS = ("patch_embed.norm", "norm_pre", "fc_norm")


def weights(facts=None):
    shapes = timm(16, 2, colours=1, patches=8 * COLUMNS)
    kept = {key: shape for key, shape in shapes.items() if not key.startswith(("head", "norm"))}
    kept |= {f"{norm}.{part}": (16,) for norm in NORMS for part in ("weight", "bias")}
    return Weights(drawn(kept), facts or {})


def slow(state, spectrogram):
    """Tokens of the last block in the published order, from (clip, mel, frame)."""
    state = dict(state)
    frames_first = spectrogram.transpose(1, 2)[:, None]
    kernel = state["patch_embed.proj.weight"]
    x = F.conv2d(frames_first, kernel, state["patch_embed.proj.bias"], stride=16)
    x = norm(state, "patch_embed.norm", x.flatten(2).transpose(1, 2))
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], dim=1) + state["pos_embed"]
    x = norm(state, "norm_pre", x)
    # The blocks of a ViT without its own patches, positions and last norm.
    for number in range(2):
        at = f"blocks.{number}."
        qkv = linear(state, f"{at}attn.qkv", norm(state, f"{at}norm1", x)).chunk(3, dim=-1)
        query, key, value = (part.unflatten(2, (2, 8)).transpose(1, 2) for part in qkv)
        scores = (query @ key.transpose(2, 3) / 8**0.5).softmax(dim=-1)
        attended = (scores @ value).transpose(1, 2).flatten(2)
        x = x + linear(state, f"{at}attn.proj", attended)
        hidden = F.gelu(linear(state, f"{at}mlp.fc1", norm(state, f"{at}norm2", x)))
        x = x + linear(state, f"{at}mlp.fc2", hidden)
    return x


def linear(state, name, x):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def norm(state, name, x):
    return F.layer_norm(x, (16,), state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)


def test_it_computes_what_the_foreign_model_computes():
    given = weights()
    assert type(recognise(given)) is AudioMosaic
    encoder = ViT(AudioMosaic().published(given, HEADS).encoder, 128).double().eval()
    converted = AudioMosaic().convert(given, encoder, HEADS)
    assert converted.notes == ["left out: fc_norm"]
    encoder.load_state_dict(converted.state)
    spectrogram = torch.randn(2, 128, 16 * COLUMNS, dtype=torch.float64)
    with torch.inference_mode():
        encoded = encoder(spectrogram)
    patches = encoded.patches.unflatten(1, (8, COLUMNS)).transpose(1, 2).flatten(1, 2)
    found = torch.cat([encoded.cls, patches], dim=1)
    torch.testing.assert_close(found, slow(given.state, spectrogram), rtol=0, atol=1e-12)


def test_statistics_are_those_beside_the_weights_or_audiosets():
    """Divided by two deviations, as in training."""
    own = {"config": {"audio_preprocessing": {"norm_mean": -6.6, "norm_std": 5.4}}}
    for facts, expected in ((own, (-6.6, 5.4)), ({}, (-4.2677393, 4.5689974))):
        front_end = AudioMosaic().published(weights(facts), HEADS).front_end
        assert (front_end.mean, front_end.std) == expected
        assert (front_end.scale, front_end.target_frames) == (2.0, 16 * COLUMNS)


def test_an_encoder_without_these_norms_is_refused():
    encoder = ViT(ViT.Config(embed_dim=16, depth=2, num_heads=2), 128)
    with pytest.raises(
        ConfigError, match=r"use --encoder\.outer-norm before --encoder\.patch-norm"
    ):
        AudioMosaic().convert(weights(), encoder, HEADS)
