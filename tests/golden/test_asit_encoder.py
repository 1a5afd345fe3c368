"""Our encoder with official ASiT weights, against numbers of the official code."""

import pytest
import torch
from golden.official_asit import (
    COLUMNS,
    CROP,
    DTYPES,
    close,
    official_encoder,
    spectrogram,
    time_major,
)

WHOLE = 16 * COLUMNS
VIEWS = {WHOLE: "encoder/view", CROP: "encoder/view192", 1024: "encoder/view1024"}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("gain", "value"), [("g02", 0.02), ("g20", 0.2)])
@pytest.mark.parametrize(
    ("release", "frames"), [("c23", WHOLE), ("c24", WHOLE), ("c24", CROP), ("c24", 1024)]
)
def test_tokens(release, frames, gain, value, dtype):
    vit = official_encoder(release, value, dtype)
    with torch.inference_mode():
        encoded = vit(spectrogram(VIEWS[frames], frames, dtype))
    patches, name = time_major(encoded.patches), f"{release}/enc/{gain}/{frames}"
    count = patches.shape[1]
    close(f"{name}/cls", encoded.cls[:, 0], dtype)
    close(
        f"{name}/patch",
        patches[:, [0, 7, 8, 150 if frames == WHOLE else count // 2, count - 1]],
        dtype,
    )
    close(f"{name}/mean_over_tokens", patches.mean(dim=1), dtype)
