"""Bad input of the recipes that predict a teacher's tokens: refused in one line before anything is left behind."""

import pytest
from tiny_runs import noises

from melpatch import machine
from melpatch.cli import main
from melpatch.objectives import eat

RECIPES = ["m2d-short", "matpac-short", "eat-short", "sslam-short", "jepa", "data2vec2"]
FLAGS = ["--size", "nano", "--steps", "1", "--batch-size", "4", "--accumulate", "1"]
FLAGS += ["--workers", "0"]


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Clips of half a second, and one of 20 ms, which has a single frame."""
    folder = tmp_path_factory.mktemp("sounds")
    noises(folder, (0.5, 0.02, 0.5, 0.5))
    return folder


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    folder = tmp_path_factory.mktemp("short")
    noises(folder, (0.02, 0.02))
    return folder


def told(capsys, folder, out, recipe, flags):
    """Return the exit status and what is printed."""
    words = ["pretrain", recipe, "--data", str(folder), "--out", str(out), *FLAGS]
    status = main([*words, *flags.split()])
    return status, capsys.readouterr().err


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--objective.target-layers 9", "--objective.target-layers 9; allowed: 0 to 4"),
        ("--objective.target-layers -1", "--objective.target-layers -1; allowed: 0 or more"),
        ("--objective.momentum.start 1.5", "--objective.momentum.start 1.5; allowed: from 0 to 1"),
        ("--objective.momentum.end -0.1", "--objective.momentum.end -0.1; allowed: from 0 to 1"),
        ("--objective.momentum.end nan", "--objective.momentum.end nan; allowed: from 0 to 1"),
        ("--objective.mask.num-masked 5000", "--objective.mask.num-masked 5000; allowed: 1 to"),
        ("--objective.mask.ratio 1", "--objective.mask.ratio 1.0; allowed: between 0 and 1"),
        ("--encoder.patch 128 2000", "no patch of a segment can be masked"),
    ],
)
def test_settings_that_do_not_exist_are_refused(sounds, tmp_path, capsys, recipe, flags, message):
    status, printed = told(capsys, sounds, tmp_path / "run", recipe, flags)
    assert status == 2
    assert message in printed.splitlines()[-1]
    assert "Traceback" not in printed
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("recipe", ["eat-short", "sslam-short"])
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--objective.views 0", "--objective.views 0; allowed: 1 to"),
        ("--objective.views 33", "--objective.views 33; allowed: 1 to"),
        ("--objective.utterance-layers 9", "--objective.utterance-layers 9; allowed: 0 to 4"),
        ("--objective.decoder.groups 7", "--objective.decoder.groups 7; allowed: a divisor of 96"),
    ],
)
def test_views_and_layers_of_the_clip_are_refused(sounds, tmp_path, capsys, recipe, flags, message):
    status, printed = told(capsys, sounds, tmp_path / "run", recipe, flags)
    assert status == 2
    assert message in printed.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_views_that_memory_cannot_hold_are_refused_with_what_one_costs(
    sounds, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(eat.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(eat, "memory_bytes", lambda: 5 << 20)
    assert machine.memory_bytes() > 5 << 20
    flags = "--objective.views 16"
    status, printed = told(capsys, sounds, tmp_path / "run", "eat-short", flags)
    assert status == 2
    last = printed.splitlines()[-1]
    assert "--objective.views 16; allowed: 1 to " in last
    assert "since a view of 4 clips takes 0.00" in last
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("recipe", RECIPES[:4])
def test_clips_that_are_all_too_short_for_a_mask_are_refused(short, tmp_path, capsys, recipe):
    flags = "--encoder.patch 128 8"
    status, printed = told(capsys, short, tmp_path / "run", recipe, flags)
    assert status == 2
    assert "no patch of a segment can be masked while another stays visible" in printed
    assert "longer segments" in printed
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("recipe", RECIPES[:4])
def test_of_a_clip_that_is_too_short_for_a_mask_is_told(sounds, tmp_path, capsys, recipe):
    flags = "--encoder.patch 128 8 --short-clips"
    status, printed = told(capsys, sounds, tmp_path / "padded", recipe, f"{flags} pad")
    assert status == 0
    assert "of 4 clips 1 are shorter than 0.105 s, too short for a masked patch" in printed
    status, printed = told(capsys, sounds, tmp_path / "repeated", recipe, f"{flags} repeat")
    assert status == 0
    assert "too short" not in printed
