"""A slow MAE decoder: one clip without padding, token by token."""

from itertools import product

import torch

from melpatch.nn.positions import sequence, sincos


def window_of(place, size, shifted):
    """Return the number (along mels, along time) of the window that holds a place (row, column)."""
    return place[0] // size[0], (place[1] + (size[1] // 2 if shifted else 0)) // size[1]


def slow_decoder(decoder, seen, cls, rows, columns):
    """Return the decoded token of each place, from the encoder's visible and class tokens."""
    config = decoder.config
    transformer = decoder.transformer
    positions = {"sincos": sincos, "sequence": sequence}[config.positions](
        rows, columns, decoder.dim
    )
    x = {}
    for row, column in product(range(rows), range(columns)):
        token = decoder.embed(seen[row, column]) if (row, column) in seen else decoder.mask_embed
        x[row, column] = token + positions[row * columns + column]
    if config.attention == "global":
        tokens = torch.stack([decoder.embed(token) for token in cls] + list(x.values()))
        return dict(zip(x, transformer(tokens[None])[0][0, len(cls) :], strict=True))
    if not transformer.norm_first:
        x = {place: transformer.norm(token) for place, token in x.items()}
    for number, block in enumerate(transformer.blocks):
        windows = {}
        for place in x:
            windows.setdefault(window_of(place, config.window, number % 2 == 1), []).append(place)
        for places in windows.values():
            tokens = torch.stack([x[place] for place in places])
            x.update(zip(places, block(tokens[None])[0], strict=True))
    if transformer.norm_first:
        x = {place: transformer.norm(token) for place, token in x.items()}
    return x
