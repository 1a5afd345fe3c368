"""Stretched positions against those of the official ASiT code of 2024."""

import pytest
import torch
from golden.official_asit import COLUMNS, DTYPES, close, official_encoder

from melpatch.nn.grid import PatchGrid


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("frames", "mels"), [(1024, 128), (192, 128), (592, 128), (600, 128), (998, 128), (592, 256)]
)
def test_the_table_spans_every_grid(frames, mels, dtype):
    name, vit = f"c24/pos/{frames}x{mels}", official_encoder("c24", 0.02, dtype)
    if (
        mels != 128
    ):  # a table of more rows is made once, one of more columns whenever a batch has them
        vit.resize_positions(COLUMNS, "bicubic", PatchGrid(n_mels=mels, partial="drop"))
    found = (
        vit.positions(vit.grid.columns(frames))
        .unflatten(0, (vit.grid.rows, -1))
        .transpose(0, 1)
        .flatten(0, 1)
    )
    count = len(found)
    points = [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 95),
        (7, 3),
        (8, 3),
        (9, 50),
        (count - 1, 0),
        (count - 1, 95),
    ]
    points += [(count // 2, 10), (count // 2, 11)]
    close(f"{name}/points", torch.stack([found[point] for point in points]), dtype)
    stats = [found.mean(), found.std(correction=0), found.square().sum(), vit.cls_position.sum()]
    close(f"{name}/stats", torch.stack(stats), dtype)
    close(f"{name}/token_norms", found.norm(dim=1), dtype)
    close(f"{name}/column_means", found.mean(dim=0), dtype)
