"""Newer published encoders at random weights: their files, their inputs, and what their code makes of them.

The rules are in golden/weights/NEWER.md of the shared folder; each folder has a README.
"""

import json
import math

import torch
from golden.published_weights import folder, numbers, published_file

from melpatch.audio.logmel import LogMel
from melpatch.encoders.vit import ViT
from melpatch.interop.base import Reading, published_settings, recognise
from melpatch.interop.dasheng import Dasheng
from melpatch.nn.pooling import Pooling, pool
from melpatch.weight_files import Weights, read_weights

# Families whose files do not tell the attention heads.
HEADS = {"m2d": 4, "atst_clip": 4, "atst_frame": 4, "audiomosaic": 4}
# Families whose input is (clip, 1, frame, mel), and whose tokens are numbered time-major.
TIME_FIRST = ("eat", "eat_hf", "audiomosaic")


def opened(name, path, quiet=False):
    """Return the encoder, in eval mode, and the front end that a published file gives by itself."""
    source = published_file(name, path, quiet)
    reading = Reading(num_heads=HEADS.get(name))
    _, published = published_settings(source, reading)
    weights = read_weights(source)
    encoder = ViT(published.encoder, published.front_end.n_mels).eval()
    converted = recognise(weights).convert(weights, encoder, reading)
    encoder.load_state_dict(converted.state)
    return encoder, LogMel(published.front_end)


def model_input(name, array="input"):
    """Return the input of the model as (clip, mel, frame)."""
    if name == "dasheng":
        return dasheng_input(numbers(name, "outputs")[array])
    given = numbers(name, "input")[array].float()[:, 0]
    return given.transpose(1, 2) if name in TIME_FIRST else given


def dasheng_input(normalised):
    """Return our input for what Dasheng's transformer takes, whose mel bins have statistics of their own."""
    tensors = torch.load(folder("dasheng") / "checkpoint.pt", weights_only=True)["model"]
    parts = ("weight", "bias", "running_mean", "running_var")
    gain, offset, mean, variance = (tensors[f"init_bn.1.{part}"][:, None] for part in parts)
    decibels = (normalised[:, 0] - offset) / gain * (variance + 1e-5).sqrt() + mean
    unit = 10 / math.log(10)
    settings = Dasheng().front_end(Weights(tensors, {}), None)
    return (decibels / unit - settings.mean) / settings.std


def valid_tokens(name, encoder):
    """Return which tokens of the input are no padding; None where there is none."""
    lengths = numbers(name, "input").get("lengths")
    if lengths is None:
        return None
    return encoder.grid.valid(lengths, encoder.grid.columns(model_input(name).shape[2]))


def tolerance(name, array):
    """Return what a float32 implementation may be off by."""
    facts = json.loads((folder(name) / "manifest.json").read_text())
    return facts[array]["atol_float32"]


def quiet_tolerance(name):
    return json.loads((folder(name) / "quiet.json").read_text())["atol_float32"]


def all_tokens(name, encoded, rows):
    """Return the tokens of an encoder in the published order, class tokens first."""
    patches = encoded.patches
    if name in TIME_FIRST:
        patches = patches.unflatten(1, (rows, -1)).transpose(1, 2).flatten(1, 2)
    return torch.cat([encoded.cls, patches], dim=1)


def pooled(encoder, spectrogram, how, valid=None):
    """Return the vectors of clips for the spelling of a pooling."""
    pooling = Pooling.parse(how)
    encoder.require_pooling(pooling)
    with torch.inference_mode():
        encoded = encoder(spectrogram, valid, layers=pooling.layer_outputs)
    patches, cls = encoded.pooled_tokens(pooling)
    return pool(patches, cls, valid, encoder.grid.rows, pooling)
