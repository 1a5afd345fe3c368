"""``melpatch show``: what a run is and how it went."""

import json

import pytest
from journeys.three_sounds import LABELS, melpatch, settings, write_run

from melpatch.cli import main
from melpatch.training.run import Run


@pytest.fixture
def run(tmp_path):
    folder = write_run(tmp_path / "run", settings(LABELS))
    Run(folder, settings(LABELS)).log({"step": 2, "loss": 0.5, "val_accuracy": 0.75})
    return folder


def test_json_tells_settings_and_the_latest_of_every_number(run, capsys):
    melpatch("show", run, "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["objective"] == "Classify"
    assert found["encoder"].startswith("ViT")
    assert found["front end"].startswith("16000 Hz, 32 mels")
    assert found["labels"] == "high, low, noise"
    assert found["segment"] == "1 s"
    assert found["weights"] == "complete"
    assert found["latest"] == {"step": 2, "loss": 0.5, "val_accuracy": 0.75}


def test_the_table_tells_the_same(run, capsys):
    melpatch("show", run)
    out = capsys.readouterr().out
    for part in ("Classify", "embed_dim=16", "32 mels", "high, low, noise", '"val_accuracy": 0.75', "complete"):
        assert part in out


def test_a_run_without_weights_says_so(run, capsys):
    (run / "model.safetensors").unlink()
    melpatch("show", run, "--json")
    assert json.loads(capsys.readouterr().out)["weights"] == "none yet"


def test_curves_are_drawn_if_asked(run, tmp_path, capsys):
    melpatch("show", run, "--curve", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "curve.png" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_exit_code_2(tmp_path, capsys):
    assert main(["show", str(tmp_path)]) == 2
    assert "config.toml: cannot be read" in capsys.readouterr().err


def test_a_run_that_did_no_step_is_exit_code_2(tmp_path, capsys):
    Run.create(tmp_path / "run", settings())
    assert main(["show", str(tmp_path / "run")]) == 2
    assert "has no metrics.jsonl; it was started, but did no step" in capsys.readouterr().err
