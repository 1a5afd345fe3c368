"""EAT is read from fairseq's layout and from Hugging Face's, by the settings that lie with either."""

import pytest
import torch
import torch.nn.functional as F
from interop.inventories import drawn, timm
from interop.slow_vit import slow_post_norm

from melpatch.encoders.vit import ViT
from melpatch.errors import ConfigError
from melpatch.interop.base import Reading, recognise
from melpatch.interop.eat import EAT
from melpatch.nn.positions import sincos
from melpatch.weight_files import Weights

COLUMNS = 6
IMAGE = {"patch_size": 16, "target_length": 512}
FAIRSEQ = {"cfg": {"model": {"num_heads": 2, "modalities": {"image": IMAGE}}}}
HUGGING_FACE = {"config": {"num_heads": 2, "norm_eps": 1e-6, "img_size": [512, 128]}}
HEAD = {f"{name}.bias": torch.zeros(size) for name, size in (("head", 7), ("fc_norm", 16))}
HEAD |= {"head.weight": torch.zeros(7, 16), "fc_norm.weight": torch.ones(16)}


def sines():
    """Fixed positions, time-major, with the row in the first half of the channels."""
    table = sincos(8, COLUMNS, 16, first="row")
    return table.unflatten(0, (8, COLUMNS)).transpose(0, 1).flatten(0, 1)


def tensors():
    """The encoder under timm's names."""
    shapes = timm(16, 2, colours=1, patches=8 * COLUMNS, classes=7)
    return {key: value for key, value in drawn(shapes).items() if not key.startswith("head")}


def weights(layout, colours=1):
    state = tensors()
    own = {key: value for key, value in state.items() if key.startswith("blocks.")}
    image = {
        "extra_tokens": state["cls_token"],
        "fixed_positional_encoder.positions": sines()[None],
    }
    for part in ("weight", "bias"):
        image[f"local_encoder.proj.{part}"] = state[f"patch_embed.proj.{part}"]
    image["local_encoder.proj.weight"] = image["local_encoder.proj.weight"].repeat(1, colours, 1, 1)
    norm = {"weight": state["norm.weight"], "bias": state["norm.bias"]}
    if layout == "hugging face":
        named = own | image | {f"pre_norm.{part}": value for part, value in norm.items()}
        named |= HEAD
        return Weights({f"model.{key}": value for key, value in named.items()}, HUGGING_FACE)
    image |= {f"context_encoder.norm.{part}": value for part, value in norm.items()}
    image["decoder.proj.weight"] = torch.zeros(16, 16)
    own |= {f"modality_encoders.IMAGE.{key}": value for key, value in image.items()}
    if layout == "fine-tuned":
        own = {f"model.{key}": value for key, value in (own | HEAD).items()}
    return Weights(own, FAIRSEQ)


def slow(spectrogram):
    """The tokens of EAT in its own order, from (clip, mel, frame)."""
    state = tensors()
    kernel = state["patch_embed.proj.weight"]
    frames_first = spectrogram.transpose(1, 2)[:, None]
    x = F.conv2d(frames_first, kernel, state["patch_embed.proj.bias"], stride=16)
    x = x.flatten(2).transpose(1, 2)
    x = x + sines()[: x.shape[1]]
    cls = state["cls_token"].expand(len(x), -1, -1)
    return slow_post_norm(state, torch.cat([cls, x], dim=1), 2)


@pytest.mark.parametrize(
    ("layout", "eps"), [("fairseq", None), ("fine-tuned", 1e-6), ("hugging face", 1e-5)]
)
def test_a_finetuned_file_has_a_classifier(layout, eps):
    head = EAT().head(weights(layout), Reading())
    assert (head and (head.norm_eps, head.pooling)) == (eps and (eps, "cls"))


@pytest.mark.parametrize("layout", ["fairseq", "fine-tuned", "hugging face"])
def test_every_layout_computes_what_the_foreign_model_computes(layout):
    given = weights(layout)
    assert type(recognise(given)) is EAT
    published = EAT().published(given, Reading())
    assert (published.encoder.norm, published.encoder.positions) == ("post", "sincos")
    assert (published.front_end.padding, published.front_end.target_frames) == ("legacy", 512)
    encoder = ViT(published.encoder, 128).double().eval()
    converted = EAT().convert(given, encoder, Reading())
    assert not any("position" in note for note in converted.notes)
    encoder.load_state_dict(converted.state)
    spectrogram = torch.randn(2, 128, 64, dtype=torch.float64)
    with torch.inference_mode():
        encoded = encoder(spectrogram)
    patches = encoded.patches.unflatten(1, (8, 4)).transpose(1, 2).flatten(1, 2)
    found = torch.cat([encoded.cls, patches], dim=1)
    torch.testing.assert_close(found, slow(spectrogram), rtol=0, atol=1e-6)


def test_without_settings_the_published_ones_count():
    given = weights("fairseq")._replace(facts={})
    published = EAT().published(given, Reading(num_heads=2))
    assert (published.front_end.target_frames, published.encoder.norm_eps) == (1024, 1e-6)
    with pytest.raises(ConfigError, match=r"give --encoder\.num-heads"):
        EAT().published(given, Reading())


def test_data2vec_of_images_is_not_taken_for_it():
    """It has the same names, and three colours."""
    with pytest.raises(ConfigError, match="unknown format"):
        recognise(weights("fairseq", colours=3))


def test_an_encoder_with_other_blocks_is_refused():
    encoder = ViT(ViT.Config(embed_dim=16, depth=2, num_heads=2), 128)
    with pytest.raises(ConfigError, match=r"encoder\.norm = 'pre'; allowed: 'post'"):
        EAT().convert(weights("fairseq"), encoder, Reading())
