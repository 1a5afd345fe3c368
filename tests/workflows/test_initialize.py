"""An encoder is initialised from a run: copied, resized to another grid, or refused."""

from dataclasses import replace

import pytest
import torch
from encoders.toy_hybrid import WIDTHS, ToyHybrid
from tiny_runs import settings

from melpatch.encoders.beats import BEATs
from melpatch.encoders.cnn14 import CNN14
from melpatch.encoders.vit import SIZES, ViT
from melpatch.errors import ConfigError
from melpatch.nn.positions import resize
from melpatch.objectives.classify import Classify
from melpatch.training.config import build
from melpatch.training.run import Run
from melpatch.workflows.initialize import copy_encoder, is_run, named_size


def saved(folder, config):
    """Save a run in the folder, and return its objective."""
    objective = build(replace(config, seed=config.seed + 100))
    run = Run.create(folder, config)
    with run.checkpoints:
        run.publish(objective.state_dict())
    return objective


def classifier(config):
    return replace(config, objective=Classify.Config(), labels=("a", "b"))


def learned(columns, **changes):
    config = settings()
    changes = {"positions": "learned", "columns": columns} | changes
    return replace(config, encoder=replace(config.encoder, **changes))


@pytest.mark.parametrize("config", [settings(), learned(5), learned(5, cls_tokens=2)])
def test_the_encoder_is_copied_and_the_head_stays(tmp_path, config):
    source = saved(tmp_path, config)
    target = build(classifier(config))
    head = {name: value.clone() for name, value in target.head.state_dict().items()}
    copy_encoder(target, tmp_path)
    theirs = source.encoder.state_dict()
    ours = target.encoder.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(value, ours[name]) for name, value in theirs.items())
    assert all(torch.equal(value, target.head.state_dict()[name]) for name, value in head.items())


@pytest.mark.parametrize("how", ["crop", "bilinear"])
@pytest.mark.parametrize("columns", [3, 9])
def test_learned_positions_are_resized_to_the_new_length(tmp_path, columns, how):
    source = saved(tmp_path, learned(5)).encoder
    target = build(classifier(learned(columns)))
    copy_encoder(target, tmp_path, how)
    expected = resize(source.position_table.detach(), (4, 5), (4, columns), how)
    assert torch.equal(target.encoder.position_table, expected)
    assert target.encoder.config == learned(columns).encoder
    assert torch.equal(target.encoder.projection.weight, source.projection.weight)


def test_learned_positions_are_resized_to_another_stride(tmp_path):
    source = saved(tmp_path, learned(5)).encoder
    target = build(classifier(learned(9, stride=(4, 4))))
    copy_encoder(target, tmp_path, "bilinear")
    expected = resize(
        source.position_table.detach(), (4, 5), (target.encoder.grid.rows, 9), "bilinear"
    )
    assert target.encoder.grid.rows > 4
    assert torch.equal(target.encoder.position_table, expected)


@pytest.mark.parametrize("stride", [None, (4, 4)])
def test_stretched_positions_are_interpolated_as_in_training(tmp_path, stride):
    source = saved(tmp_path, learned(5, positions="stretched")).encoder
    target = build(classifier(learned(9, positions="stretched", stride=stride)))
    copy_encoder(target, tmp_path)
    expected = resize(
        source.position_table.detach(), (4, 5), (target.encoder.grid.rows, 9), "bicubic"
    )
    assert torch.equal(target.encoder.position_table, expected)
    if stride is None:
        assert torch.equal(target.encoder.positions(9), source.positions(9))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sample_rate", 16000),
        ("n_mels", 40),
        ("hop_ms", 5.0),
        ("window_ms", 32.0),
        ("low_hz", 50.0),
        ("high_hz", 3e3),
        ("preemphasis", 0.0),
        ("centred", True),
        ("window", "povey"),
        ("floor", 1e-5),
    ],
)
def test_another_kind_of_spectrogram_is_refused(tmp_path, field, value):
    saved(tmp_path, settings())
    other = settings()
    target = build(replace(other, front_end=replace(other.front_end, **{field: value})))
    with pytest.raises(
        ConfigError,
        match=f"front_end.{field} = {value!r} but .* was trained with .*; give --front-end",
    ):
        copy_encoder(target, tmp_path)


def test_all_that_differs_in_a_spectrogram_is_named_with_its_flags(tmp_path):
    saved(tmp_path, settings())
    other = settings()
    changed = replace(other.front_end, window="povey", n_mels=40)
    with pytest.raises(
        ConfigError, match=f"--front-end.n-mels {other.front_end.n_mels} .*--front-end.window hann"
    ):
        copy_encoder(build(replace(other, front_end=changed)), tmp_path)


@pytest.mark.parametrize("field", ["mean", "std", "scale"])
def test_other_statistics_are_allowed(tmp_path, field):
    """Statistics belong to a corpus, and a new corpus has its own."""
    saved(tmp_path, settings())
    other = settings()
    target = build(replace(other, front_end=replace(other.front_end, **{field: 2.5})))
    copy_encoder(target, tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"embed_dim": 32},
        {"depth": 3},
        {"depth": 1},
        {"cls_tokens": 2},
        {"patch": (8, 4)},
        {"positions": "learned"},
    ],
    ids=str,
)
def test_another_encoder_is_refused(tmp_path, changes):
    saved(tmp_path, settings())
    other = settings()
    target = build(replace(other, encoder=replace(other.encoder, **changes)))
    with pytest.raises(
        ConfigError,
        match=r"encoder settings do not fit the weights of .*; (leave them out|give --encoder)",
    ) as error:
        copy_encoder(target, tmp_path)
    assert "\n" not in str(error.value)


def test_other_sizes_are_refused_with_their_flags(tmp_path):
    saved(tmp_path, settings())
    config = settings().encoder
    target = build(replace(settings(), encoder=replace(config, embed_dim=2 * config.embed_dim)))
    with pytest.raises(
        ConfigError,
        match=rf"; give --encoder\.embed-dim {config.embed_dim}, or the --size of that run$",
    ):
        copy_encoder(target, tmp_path)


def test_another_kind_of_encoder_is_refused_with_the_flag(tmp_path):
    saved(tmp_path, settings())
    config = BEATs.Config(embed_dim=16, num_heads=2, patch=(4, 4), conv_groups=2)
    with pytest.raises(ConfigError, match=r"encoder = beats but .* has vit; give --encoder vit"):
        copy_encoder(build(replace(settings(), encoder=config)), tmp_path)


def test_learned_positions_for_other_patches_are_refused(tmp_path):
    saved(tmp_path, learned(5))
    with pytest.raises(ConfigError, match="patch = "):
        copy_encoder(build(learned(5, patch=(16, 8))), tmp_path)


def test_a_folder_that_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.toml: cannot be read"):
        copy_encoder(build(settings()), tmp_path)


@pytest.mark.parametrize("exists", [False, True])
def test_a_missing_start_is_told_from_a_folder_that_is_no_run(tmp_path, exists):
    start = tmp_path / "a"
    if exists:
        start.mkdir()
    problem = "holds no config.toml" if exists else "does not exist"
    with pytest.raises(ConfigError, match=f"allowed: a run folder.*{start}, which {problem}"):
        is_run(str(start))


@pytest.mark.parametrize("piece", [ViT, CNN14, ToyHybrid])
def test_an_encoder_has_the_name_of_its_size(piece):
    assert [named_size(piece.Config.of_size(size)) for size in SIZES] == [*SIZES]


def test_an_encoder_of_other_widths_has_no_size_whatever_sizes_it_knows(monkeypatch):
    monkeypatch.delitem(WIDTHS, "large")
    assert named_size(ToyHybrid.Config(width=27)) is None
    assert named_size(ToyHybrid.Config.of_size("base")) == "base"
