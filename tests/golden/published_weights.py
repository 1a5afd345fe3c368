"""State dicts of published code at deterministic weights, rebuilt as files, with what that code makes of them.

The rules are in golden/weights/RULES.md and NEWER.md of the shared folder.
"""

import argparse
import json

import numpy as np
import torch
from places import shared
from safetensors.torch import load_file

from melpatch.audio.logmel import LogMel
from melpatch.encoders.vit import ViT
from melpatch.interop.base import Reading, published_settings, recognise
from melpatch.weight_files import read_weights

HEADS = {"audiomae_overlap": 2}
FIXED_TABLES = {"mae_ast": "enc_sine_pos_embed.pe", "m2d": "pos_embed"}
TIME_MAJOR = ("asit", "asit_2024", "audiomae_pretrain", "audiomae_overlap", "audiomae_finetuned")


def folder(name):
    return shared(f"golden/weights/{name}")


def numbers(name, file="golden"):
    """Return the arrays of a folder as tensors."""
    arrays = np.load(folder(name) / f"{file}.npz")
    return {key: torch.from_numpy(arrays[key]) for key in arrays}


def wave(name):
    """Return the input as a clip in [-1, 1], from 16-bit PCM after a header of 44 bytes."""
    data = (folder(name) / "wave.wav").read_bytes()[44:]
    return torch.from_numpy(np.frombuffer(data, "<i2").astype(np.float32) / 32768)


def published_file(name, path, quiet=False):
    """Write a checkpoint as it is published; quiet scales the tensors that quiet.json names. Return its path."""
    if (folder(name) / "checkpoint.pt").exists():
        content = torch.load(folder(name) / "checkpoint.pt", weights_only=True)
        if quiet:
            _quieten(content.get("model") or content.get("state_dict") or content, name)
        torch.save(content, path / "w.pth")
        return str(path / "w.pth")
    if not (folder(name) / "layout.json").exists():
        return _hugging_face_folder(name, path, quiet)
    layout = json.loads((folder(name) / "layout.json").read_text())
    top = {key: _entry(value) for key, value in layout.get("other_top_level_entries", {}).items()}
    for file, one in layout["files"].items():
        tensors = load_file(folder(name) / file)
        if quiet:
            _quieten(tensors, name)
        if one["container"] is None:
            top = tensors
        else:
            top[one["container"]] = tensors
    torch.save(top, path / "w.pth")
    return str(path / "w.pth")


def _hugging_face_folder(name, path, quiet):
    tensors = load_file(folder(name) / "model.safetensors")
    if quiet:
        _quieten(tensors, name)
    torch.save(tensors, path / "pytorch_model.bin")
    for file in ("config.json", "preprocessor_config.json"):
        if (folder(name) / file).exists():
            (path / file).write_text((folder(name) / file).read_text())
    return str(path)


def _quieten(tensors, name):
    listed = json.loads((folder(name) / "quiet.json").read_text())
    for key in listed["keys"]:
        # Fixed sines of the file are checked, not taken.
        if key in tensors and key != FIXED_TABLES.get(name):
            tensors[key] = tensors[key] * np.float32(0.01)


def _entry(value):
    if isinstance(value, dict) and "argparse.Namespace" in value:
        return argparse.Namespace(**value["argparse.Namespace"])
    if isinstance(value, dict) and "center" in value:
        return {"center": torch.zeros(value["center"])}
    return {} if value == "dict, not needed" else value


def reading(name):
    return Reading(num_heads=HEADS.get(name, 3))


def opened(name, source, **changes):
    """Return the encoder that a file gives by itself, its front end, and the notes on it."""
    asked = reading(name) if name not in ("hf_ast", "hf_ast_geometry", "mae_ast") else Reading()
    _, published = published_settings(source, asked)
    weights = read_weights(source)
    n_mels = published.front_end.n_mels if published.front_end else 64
    encoder = ViT(published.encoder, n_mels).eval()
    converted = recognise(weights).convert(weights, encoder, asked)
    encoder.load_state_dict(converted.state)
    return encoder, published.front_end, converted.notes


def model_input(features, front_end, frames, fill=None):
    """Return features (frame, mel) as our input (clip, mel, frame), with the padding that was left out of them."""
    value = LogMel(front_end)._fill if fill is None else fill
    return torch.nn.functional.pad(features.T, (0, frames - len(features)), value=value)[None]


def all_tokens(encoder, spectrogram):
    with torch.inference_mode():
        encoded = encoder(spectrogram)
    return torch.cat([encoded.cls, encoded.patches], dim=1)[0]


def our_order(tokens, rows, name, specials=1):
    """Return published tokens (token, dim) in our order; those of some families are time-major."""
    if name not in TIME_MAJOR:
        return tokens
    patches = tokens[specials:].unflatten(0, (-1, rows)).transpose(0, 1).flatten(0, 1)
    return torch.cat([tokens[:specials], patches])
