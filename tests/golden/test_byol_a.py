"""The CNN of BYOL-A against numbers of the published code, both versions."""

import pytest
import torch
from golden.published_weights import numbers, published_file

from melpatch.encoders.byol_a import BYOLA
from melpatch.interop.base import Foreign


@pytest.mark.parametrize("name", ["byol_a_v1", "byol_a_v2"])
@torch.inference_mode()
def test_frames_and_the_pooled_feature_are_those_of_the_published_code(name, tmp_path):
    foreign = Foreign(published_file(name, tmp_path))
    published = foreign.published()
    encoder = BYOLA(published.encoder, published.front_end.n_mels).eval()
    assert foreign.fill(encoder) == []
    patches, cls, _ = encoder(numbers(name, "input")["input"].float()[:, 0])
    expected = numbers(name, "outputs")
    torch.testing.assert_close(patches, expected["frames"], rtol=0, atol=3.2e-5)
    torch.testing.assert_close(cls[:, 0], expected["features_clip"], rtol=0, atol=2.9e-5)
