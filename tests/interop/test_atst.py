"""ATST-Clip and ATST-Frame: columns of all bands, a table that shorter clips cut, the teacher's weights."""

import pytest
import torch
from interop.inventories import drawn, timm
from interop.slow_vit import slow_timm

from melpatch.encoders.vit import ViT
from melpatch.interop.atst import ATST
from melpatch.interop.base import Reading, recognise
from melpatch.weight_files import Weights
from melpatch.workflows.finetune import finetune_defaults

HEADS = Reading(num_heads=2)
COLUMNS = 6


def tensors(width=16, columns=COLUMNS):
    """The teacher's encoder under timm's names, whose q, k and v have no bias."""
    shapes = timm(width, 2, colours=1, patches=columns, patch=(64, 4))
    state = {key: value for key, value in drawn(shapes).items() if not key.startswith("head")}
    for number in range(2):
        state[f"blocks.{number}.attn.qkv.bias"] = torch.zeros(3 * width, dtype=torch.float64)
    return state


def weights(state, *, frame=False):
    named = {key: value for key, value in state.items() if not key.endswith("qkv.bias")}
    kernel = named.pop("patch_embed.proj.weight")
    named["patch_embed.patch_embed.weight"] = kernel.flatten(1)
    named["patch_embed.patch_embed.bias"] = named.pop("patch_embed.proj.bias")
    named["mask_embed"] = torch.zeros(1, 1, len(kernel))
    if frame:
        del named["cls_token"]
        for part in ("weight", "bias"):
            named[f"norm_frame.{part}"] = named.pop(f"norm.{part}")
    student = {f"model.student.encoder.{key}": 2 * value for key, value in named.items()}
    teacher = {f"model.teacher.encoder.{key}": value for key, value in named.items()}
    projector = {"model.teacher.projector.0.weight": torch.zeros(8, 16)}
    return Weights(student | teacher | projector, {})


@pytest.mark.parametrize("frame", [False, True], ids=["clip", "frame"])
def test_it_computes_what_the_foreign_model_computes_on_shorter_clips(frame):
    state = tensors()
    given = weights(state, frame=frame)
    assert type(recognise(given)) is ATST
    published = ATST().published(given, HEADS)
    assert (published.encoder.patch, published.encoder.cls_tokens) == ((64, 4), int(not frame))
    encoder = ViT(published.encoder, 64).double().eval()
    encoder.load_state_dict(ATST().convert(given, encoder, HEADS).state)
    # Four columns, and two frames that are no column.
    spectrogram = torch.randn(2, 64, 18, dtype=torch.float64)
    with torch.inference_mode():
        encoded = encoder(spectrogram)
    state["pos_embed"] = state["pos_embed"][:, :5]
    if frame:
        del state["cls_token"]
        state["pos_embed"] = state["pos_embed"][:, 1:]
    expected = slow_timm(state, spectrogram[:, None], 2, (64, 4))
    found = torch.cat([encoded.cls, encoded.patches], dim=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_init_alone_takes_front_end_and_ten_seconds(tmp_path):
    path = str(tmp_path / "atst.ckpt")
    state = weights(tensors(64, 250)).state
    torch.save({"state_dict": {key: value.float() for key, value in state.items()}}, path)
    training = finetune_defaults(path).training
    assert training.loader.seconds == 10.0
    assert (training.front_end.n_mels, training.front_end.range_db) == (64, 80.0)
    assert (training.encoder.positions, training.encoder.columns) == ("learned", 250)


def test_an_encoder_of_shorter_clips_takes_the_first_positions():
    """The published code cuts its table; AST's takes the middle."""
    given = weights(tensors())
    config = ATST().published(given, HEADS).encoder
    short = ViT(config.fit_positions(64, 12), 64)
    table = ATST().convert(given, short, HEADS).state["position_table"]
    assert torch.equal(table, given.state["model.teacher.encoder.pos_embed"][0, 1:4])
