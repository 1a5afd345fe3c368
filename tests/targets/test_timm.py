"""``--to timm``: published names, read back to the same bits."""

import json

import pytest
import torch
from golden.official import golden
from journeys.three_sounds import settings
from safetensors import safe_open
from targets.runs import LABELS, ast, ssast, write_run

from melpatch import cli
from melpatch.interop.base import published_settings, start_from_weights
from melpatch.training.config import build
from melpatch.weight_files import read_state


def export(folder, config):
    model = write_run(folder / "run", config)
    out = folder / "weights.safetensors"
    assert cli.main(["export", str(folder / "run"), "--to", "timm", "--out", str(out)]) == 0
    return model, out


@pytest.mark.parametrize(
    "config",
    [
        ssast(),
        ast(),
        ast(patch=(128, 2), stride=(128, 1), columns=127),
        ast(cls_tokens=1),
        ast(cls_tokens=0, objective={"pooling": "mean"}),
        settings(LABELS, positions="sincos"),
        settings((), positions="sincos", cls_tokens=0),
        ast(positions="stretched", columns=20),
    ],
    ids=["ssast", "ast", "frames", "one token", "no token", "sincos", "plain", "stretched"],
)
def test_the_encoder_comes_back_to_the_bit(config, tmp_path, capsys):
    model, out = export(tmp_path, config)
    again = build(config)
    before = {name: value.clone() for name, value in again.encoder.state_dict().items()}
    start_from_weights(again, str(out))
    expected = model.objective.export_encoder().state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in expected.items())
    _, published = published_settings(str(out))
    assert published.encoder == model.objective.export_encoder().config
    assert published.front_end == config.front_end
    assert all(
        torch.equal(value, again.encoder.state_dict()[name]) for name, value in expected.items()
    )


def test_names_are_those_of_the_published_files(tmp_path):
    published = golden("rule_check")["state_dict_keys"]
    _, out = export(
        tmp_path, ast(embed_dim=192, depth=12, columns=101, front_end={"target_frames": 1024})
    )
    shapes = {name: list(value.shape) for name, value in read_state(str(out)).items()}
    inner = {name for name in published["ast"] if not name.startswith("v.head")}
    assert shapes.keys() == inner | {f"mlp_head.{part}" for part in HEAD}
    assert all(shapes[name] == published["ast"][name] for name in inner if name.startswith("v."))


HEAD = ("0.weight", "0.bias", "1.weight", "1.bias")


def test_ssast_states_the_size_of_its_input(tmp_path):
    _, out = export(tmp_path, ssast())
    state = read_state(str(out))
    assert state["p_input_fdim"].item() == 128
    assert state["p_input_tdim"].item() == 128


def test_the_header_says_what_the_tensors_do_not(tmp_path):
    _, out = export(tmp_path, ast())
    with safe_open(out, "pt") as file:
        about = json.loads(file.metadata()["melpatch"])
    assert about["labels"] == [*LABELS]
    assert about["pooling"] == "cls"
    assert about["encoder"]["stride"] == [10, 10]
    assert about["front_end"]["target_frames"] == 128


def test_a_head_without_a_place_is_told(tmp_path, capsys):
    export(tmp_path, ast(objective={"head": "standardised"}))
    assert "the head is left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ast((), norm="post", stride=None), "encoder.norm = 'post' (fits: 'pre')"),
        (ast((), input_norm="batch", stride=None), "encoder.input_norm = 'batch' (fits: 'none')"),
        (
            ast((), outer_norm="before", stride=None),
            "encoder.outer_norm = 'before' (fits: 'after')",
        ),
        (ast((), patch_norm=True, stride=None), "encoder.patch_norm = True (fits: False)"),
    ],
)
def test_another_encoder_is_refused_by_the_setting(config, message, tmp_path, capsys):
    write_run(tmp_path / "run", config)
    out = tmp_path / "w.safetensors"
    assert cli.main(["export", str(tmp_path / "run"), "--to", "timm", "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()
