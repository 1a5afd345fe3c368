"""Tiny masked autoencoders, noise for them, and their forward pass patch by patch."""

from itertools import product

import torch
from nn.slow_decoder import slow_decoder
from objectives.tiny_asit import LONGEST, PATCH, RATE
from torch import nn

from melpatch.audio.logmel import LogMel
from melpatch.data.loader import LoaderConfig
from melpatch.encoders.vit import ViT
from melpatch.nn.mae_decoder import MAEDecoder
from melpatch.training.config import RunConfig, build

MELS = 30
"""Four patches, of which the topmost is cut off."""


def masked(piece, front_end=None, encoder=None, decoder=None, seed=0, **settings):
    """A tiny one whose predictions are as large as what is to be told, in double precision, at rest."""
    tiny = {"embed_dim": 24, "depth": 2, "num_heads": 3, "patch": (PATCH, PATCH)}
    small = {"dim": 16, "depth": 2, "num_heads": 2, "window": (2, 2)}
    config = RunConfig(
        seed=seed,
        front_end=LogMel.Config(
            **{"sample_rate": RATE, "n_mels": MELS, "scale": 1.0} | (front_end or {})
        ),
        encoder=ViT.Config(**tiny | (encoder or {})),
        objective=piece.Config(decoder=MAEDecoder.Config(**small | (decoder or {})), **settings),
        loader=LoaderConfig(seconds=LONGEST),
    )
    objective, generator = build(config).double().eval(), torch.Generator().manual_seed(seed)
    for parameter in objective.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return objective


def slow_clips(objective, data):
    """For each clip: the decoded token of each hidden patch, and the pixels of every patch, by (row, column)."""
    features = objective.features(data)
    hidden = objective.mask_patches(data, features, 0).masked
    width = objective.encoder.grid.columns(features.spectrogram.shape[-1])
    for clip, length in enumerate(data.lengths.tolist()):
        spectrogram = features.spectrogram[clip, :, : objective.front_end.frames(length)]
        unseen = [
            divmod(token, width) for token in hidden.indices[clip, hidden.valid[clip]].tolist()
        ]
        yield slow_clip(objective, spectrogram, unseen)


def slow_clip(objective, spectrogram, unseen):
    encoder, (height, wide) = objective.encoder, objective.encoder.grid.patch
    rows, columns = encoder.grid.rows, encoder.grid.columns(spectrogram.shape[1])
    positions, pixels, tokens = encoder.positions(columns), {}, {}
    for row, column in product(range(rows), range(columns)):
        whole = spectrogram.new_zeros(height, wide)
        cut = spectrogram[row * height : (row + 1) * height, column * wide : (column + 1) * wide]
        whole[: cut.shape[0], : cut.shape[1]] = cut
        pixels[row, column] = whole.flatten()
        if (row, column) not in unseen:
            tokens[row, column] = (
                encoder.projection(pixels[row, column]) + positions[row * columns + column]
            )
    encoded = encoder.encode_tokens(torch.stack([*tokens.values()])[None])
    seen = dict(zip(tokens, encoded.patches[0], strict=True))
    decoded = slow_decoder(objective.decoder, seen, encoded.cls[0], rows, columns)
    return {place: decoded[place] for place in unseen}, pixels
