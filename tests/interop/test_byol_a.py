"""What BYOL-A's files must hold; tests/golden holds what the published code makes of them."""

import pytest
import torch
from interop.inventories import drawn

from melpatch.encoders.byol_a import BYOLA
from melpatch.errors import ConfigError
from melpatch.interop.base import Reading, recognise
from melpatch.interop.byol_a import BYOLAWeights
from melpatch.weight_files import Weights


def weights(blocks, prefix="", more=()):
    """A file of narrow blocks on 64 mels."""
    features = 4 * 64 // 2**blocks
    shapes = {"fc.0.weight": (6, features), "fc.0.bias": (6,), "fc.3.weight": (5, 6)}
    shapes |= {"fc.3.bias": (5,), **dict.fromkeys(more, (3,))}
    for block in range(blocks):
        at = f"features.{4 * block}"
        shapes |= {f"{at}.weight": (4, 4 if block else 1, 3, 3), f"{at}.bias": (4,)}
        norm = f"features.{4 * block + 1}"
        parts = ("weight", "bias", "running_mean", "running_var")
        shapes |= {f"{norm}.{part}": (4,) for part in parts}
        shapes |= {f"{norm}.num_batches_tracked": ()}
    return Weights({f"{prefix}{name}": value for name, value in drawn(shapes).items()}, {})


@pytest.mark.parametrize("prefix", ["", "model.", "online_encoder.net."])
@pytest.mark.parametrize(("version", "blocks"), [("v1", 3), ("v2", 2)])
def test_every_weight_has_its_place_and_the_shapes_tell_the_settings(version, blocks, prefix):
    given = weights(blocks, prefix)
    weight_format = recognise(given)
    assert type(weight_format) is BYOLAWeights
    published = weight_format.published(given, Reading())
    sizes = {"channels": 4, "hidden": 6, "output": 5}
    assert published.encoder == BYOLA.Config(version=version, trim="pooling", **sizes)
    assert (published.front_end.n_mels, published.frames) == (64, 96)
    encoder = BYOLA(published.encoder, 64)
    converted = weight_format.convert(given, encoder, Reading())
    encoder.load_state_dict(converted.state)
    assert converted.notes == []
    last = f"{prefix}features.{4 * (blocks - 1)}.weight"
    assert torch.equal(encoder.blocks[-1].conv.weight.double(), given.state[last].float().double())


def test_other_parts_are_left_out():
    given = weights(2, more=["projector.0.weight"])
    converted = BYOLAWeights().convert(
        given, BYOLA(BYOLA.Config(channels=4, hidden=6, output=5), 64), Reading()
    )
    cut = "frames are cut before the first convolution (--encoder.trim pooling is theirs)"
    assert converted.notes == [cut, "left out: projector"]


def test_another_number_of_blocks_is_refused():
    with pytest.raises(ConfigError, match=r"BYOL-A with 4 blocks; allowed: 3 \(version 1\)"):
        BYOLAWeights().published(weights(4), Reading())


def test_an_encoder_of_another_size_is_refused_with_the_flag():
    with pytest.raises(ConfigError, match=r"weights have 'v1'; use --encoder\.version v1"):
        BYOLAWeights().convert(weights(3), BYOLA(BYOLA.Config(), 64), Reading())
