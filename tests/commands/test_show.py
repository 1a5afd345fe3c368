"""``melpatch show``: what a run is and how it went."""

import json
from dataclasses import replace

import pytest
import soundfile
import torch
from journeys.three_sounds import LABELS, melpatch, settings, wave, write_run, write_sound

from melpatch.cli import main
from melpatch.commands import show
from melpatch.objectives.barlow_twins import BarlowTwins
from melpatch.objectives.base import Picture
from melpatch.objectives.ssast import SSAST
from melpatch.training.run import Run
from melpatch.workflows import pictures


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


def test_the_last_warning_is_told_with_its_step(run, capsys):
    told = []
    for record in (
        {},
        {"step": 3, "warning": "early"},
        {"step": 5, "warning": "it fails"},
        {"step": 7, "loss": 0.4},
    ):
        Run(run, settings(LABELS)).log({"step": 2} | record)
        melpatch("show", run, "--json")
        told.append(json.loads(capsys.readouterr().out))
    assert [found["warning"] for found in told] == [
        "none",
        "step 3: early",
        "step 5: it fails",
        "step 5: it fails",
    ]
    assert told[-1]["latest"] == {"step": 7, "loss": 0.4, "val_accuracy": 0.75}


def test_the_table_tells_the_same(run, capsys):
    melpatch("show", run)
    out = capsys.readouterr().out
    for part in (
        "Classify",
        "ViT: embed_dim 16, depth 2",
        "32 mels",
        "high, low, noise",
        "val_accuracy 0.75",
        "complete",
    ):
        assert part in out


def test_what_the_kept_weights_do_on_validation_is_told(run, capsys):
    metrics = {"accuracy": 0.846, "majority_rate": 0.846}
    record = {"metrics": metrics, "warnings": ["on validation every clip is low", "worse"]}
    (run / "validation.json").write_text(json.dumps(record))
    melpatch("show", run, "--json")
    shown = json.loads(capsys.readouterr().out)
    assert shown["warning"] == "on validation every clip is low; worse"
    assert shown["kept weights on validation"] == metrics
    (run / "validation.json").write_text("{}")
    assert main(["show", str(run)]) == 2
    assert "validation.json: damaged" in capsys.readouterr().err


def test_a_run_without_weights_says_so(run, capsys):
    (run / "model.safetensors").unlink()
    melpatch("show", run, "--json")
    assert json.loads(capsys.readouterr().out)["weights"] == "none yet"


def test_a_table_is_shown_by_what_it_is_of(run, tmp_path, capsys):
    write_sound(tmp_path / "sounds" / "a.wav")
    for name in ("v.npz", "v.csv", "bare"):
        melpatch("embed", run, tmp_path / "sounds", "--pooling", "mean", "--out", tmp_path / name)
        capsys.readouterr()
        melpatch("show", tmp_path / name, "--json")
        facts = json.loads(capsys.readouterr().out)
        assert (facts["run"], facts["pooling"], facts["dim"]) == (str(run), "mean", 16)
    melpatch("predict", run, tmp_path / "sounds", "--out", tmp_path / "p.csv")
    melpatch("show", tmp_path / "p.csv")
    out = capsys.readouterr().out
    assert "high, low, noise" in out
    assert "the most probable class" in out


def test_a_table_of_others_and_pictures_of_a_table_are_refused(run, tmp_path, capsys):
    (tmp_path / "a.csv").write_text("path,embeddings_0\na.wav,1\n", encoding="utf-8")
    assert main(["show", str(tmp_path / "a.csv")]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "does not tell what it holds; only tables of embed and predict do" in told
    assert "a.csv.about.json" in told
    assert main(["show", str(tmp_path / "a.csv"), "--curve", str(tmp_path / "c.png")]) == 2
    assert "--curve is for a run" in capsys.readouterr().err


def test_an_index_is_shown_by_what_made_it_and_what_it_holds(tmp_path, capsys):
    pretrained, sounds, index = tmp_path / "p", tmp_path / "sounds", tmp_path / "index"
    write_run(pretrained, settings())
    write_sound(sounds / "a.wav", seconds=2.5)
    write_sound(sounds / "b.wav", "high", seconds=1)
    melpatch("index", pretrained, sounds, "--window", 1, "--hop", 0.5, "--out", index)
    write_sound(sounds / "b.wav", "noise", seconds=2)
    melpatch("index", pretrained, sounds, "--out", index)
    capsys.readouterr()
    melpatch("show", index, "--json")
    facts = json.loads(capsys.readouterr().out)
    assert (facts["run"], facts["pooling"]) == (str(pretrained), "mean+std")
    assert (facts["window"], facts["hop"], facts["layer"]) == (1, 0.5, None)
    assert (facts["recordings"], facts["windows"], facts["segments"]) == (2, 7, 2)
    assert facts["hours"] == pytest.approx(4.5 / 3600, abs=6e-4)
    assert (facts["silent windows"], facts["labels"]) == (0, False)
    assert main(["show", str(index), "--curve", str(tmp_path / "c.png")]) == 2
    assert "--curve is for a run, and" in capsys.readouterr().err


def test_curves_are_drawn_if_asked(run, tmp_path, capsys):
    melpatch("show", run, "--curve", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "curve.png" in capsys.readouterr().err


def test_a_recording_is_drawn_as_a_pretraining_run_sees_it(tmp_path, monkeypatch, capsys):
    drawn = []
    draw = pictures.reconstruction

    def keep(path, picture, **words):
        drawn.append(picture)
        draw(path, picture, **words)

    monkeypatch.setattr(pictures, "reconstruction", keep)
    run, sound = (
        write_run(tmp_path / "run", settings()),
        write_sound(tmp_path / "low.wav", seconds=2.5, rate=8000),
    )
    for _ in range(2):
        melpatch("show", run, "--sound", sound, "--pictures", tmp_path / "pictures")
    (file,) = (tmp_path / "pictures").iterdir()
    assert file.name == "reconstruction.png"
    assert file.read_bytes().startswith(b"\x89PNG")
    assert "reconstruction.png" in capsys.readouterr().err
    assert drawn[0].clean.shape == (32, 98)  # one segment of a second, at the run's own rate
    assert torch.equal(drawn[0].reconstruction, drawn[1].reconstruction)


def test_the_loudest_segment_is_drawn_and_named(tmp_path, monkeypatch):
    given = []

    def keep(folder, model, clip, title=""):
        given.append((clip, title))
        return [folder / "reconstruction.png"]

    monkeypatch.setattr(show, "draw_pictures", keep)
    run = write_run(tmp_path / "run", settings())
    samples = 0.01 * wave("low", 4.0)
    samples[40_000:56_000] *= 50
    soundfile.write(tmp_path / "call.wav", samples, 16000)
    soundfile.write(tmp_path / "short.wav", samples[:8000], 16000)
    for name in ("call.wav", "short.wav"):
        melpatch("show", run, "--sound", tmp_path / name, "--pictures", tmp_path / "pictures")
    call, short = given
    assert (call[0].start, call[0].duration, call[1]) == (2.5, 1.0, "call.wav, 2.5 to 3.5 s")
    assert (short[0].start, short[0].duration) == (0.0, 0.5)


def test_classes_are_drawn_where_there_are_some(tmp_path, monkeypatch, capsys):
    def shown(self, batch, step):
        clean, _ = (one[0] for one in self.front_end(batch.wave, batch.lengths))
        return Picture(clean, clean, clean > 0, clean, pseudo_labels=torch.arange(14).view(2, 7))

    monkeypatch.setattr(SSAST, "picture", shown)
    run, sound = write_run(tmp_path / "run", settings()), write_sound(tmp_path / "low.wav")
    melpatch("show", run, "--sound", sound, "--pictures", tmp_path / "pictures")
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        "reconstruction.png",
        "classes.png",
    }
    assert "classes.png" in capsys.readouterr().err


def test_views_are_drawn_where_they_are_compared(tmp_path, capsys):
    config = replace(settings(), objective=BarlowTwins.Config(hidden_dim=8, projection=4))
    run, sound = write_run(tmp_path / "run", config), write_sound(tmp_path / "low.wav")
    melpatch("show", run, "--sound", sound, "--pictures", tmp_path / "pictures")
    (file,) = (tmp_path / "pictures").iterdir()
    assert file.name == "two_views.png"
    assert "two_views.png" in capsys.readouterr().err


def test_a_run_that_rebuilds_nothing_says_so(run, tmp_path, capsys):
    words = [
        "show",
        run,
        "--sound",
        write_sound(tmp_path / "low.wav"),
        "--pictures",
        tmp_path / "pictures",
    ]
    assert main([str(word) for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "Classify reconstructs nothing to draw" in line
    assert not (tmp_path / "pictures").exists()


def test_a_recording_that_cannot_be_read_is_named(tmp_path, capsys):
    run = write_run(tmp_path / "run", settings())
    assert (
        main(
            [
                "show",
                str(run),
                "--sound",
                str(tmp_path / "no.wav"),
                "--pictures",
                str(tmp_path / "pictures"),
            ]
        )
        == 2
    )
    assert "no.wav: " in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--sound", "--pictures"])
def test_a_recording_and_a_folder_for_its_pictures_go_together(run, flag, capsys):
    assert main(["show", str(run), flag, "somewhere"]) == 2
    assert f"{flag} is given but " in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_exit_code_2(tmp_path, capsys):
    assert main(["show", str(tmp_path)]) == 2
    assert "config.toml: cannot be read" in capsys.readouterr().err


def test_a_run_that_did_no_step_is_exit_code_2(tmp_path, capsys):
    Run.create(tmp_path / "run", settings())
    assert main(["show", str(tmp_path / "run")]) == 2
    assert "has no metrics.jsonl; the run made no step yet" in capsys.readouterr().err
