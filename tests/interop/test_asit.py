"""ASiT's checkpoints {student, teacher, args}; tests/golden holds what the published code makes of them."""

import argparse

import pytest
import torch
from interop.inventories import drawn, timm

from melpatch.errors import ConfigError
from melpatch.interop.asit import ASiT
from melpatch.interop.base import Reading, recognise
from melpatch.weight_files import read_weights

ARGUMENTS = argparse.Namespace(num_mel_bins=128, data_mean=-5.0, data_std=3.0)


def network(seed, head, patches=296):
    shapes = {
        f"backbone.{name}": shape
        for name, shape in timm(64, 2, colours=1, patches=patches).items()
        if not name.startswith("head")
    }
    shapes |= {f"{head}.mlp.0.weight": (8, 64), "head_recons.convTrans.weight": (8, 1, 16, 16)}
    return drawn(shapes, seed)


def checkpoint(path, head="head", patches=296):
    student = {f"module.{name}": value for name, value in network(0, head, patches).items()}
    content = {"student": student, "teacher": network(1, head, patches), "args": ARGUMENTS}
    torch.save(content, path / "asit.pth")
    return read_weights(str(path / "asit.pth"))


@pytest.mark.parametrize(("head", "sample_rate"), [("head_cls", 32000), ("head", 16000)])
def test_the_teacher_is_read_with_the_settings_of_its_release(head, sample_rate, tmp_path):
    weights = checkpoint(tmp_path, head)
    assert type(recognise(weights)) is ASiT
    teacher = network(1, head)
    assert torch.equal(weights.state["backbone.norm.weight"], teacher["backbone.norm.weight"])
    published = ASiT().published(weights, Reading())
    front_end = published.front_end
    assert (front_end.sample_rate, front_end.target_frames) == (sample_rate, 592)
    assert (front_end.mean, front_end.std) == (-5.0, 3.0)
    assert published.encoder.columns == 37
    assert published.encoder.positions == "learned"


def test_positions_that_make_no_whole_columns_are_refused(tmp_path):
    weights = checkpoint(tmp_path, patches=295)
    with pytest.raises(ConfigError, match=r"pos_embed has 295 positions, which 128 mels"):
        ASiT().published(weights, Reading())
