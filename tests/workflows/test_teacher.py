"""A teacher is opened from a run or a weight file, kept with the run of its student, or refused in one line."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from interop.inventories import cnn14, drawn
from journeys.three_sounds import SHORT, melpatch, settings, write_corpus, write_run
from safetensors.torch import save_file

import melpatch as package
from melpatch.checkpoint import load_weights, save_weights
from melpatch.cli import main
from melpatch.config import from_toml
from melpatch.objectives.distill import Distill
from melpatch.recipes.base import recipe
from melpatch.training.config import RunConfig, build
from melpatch.training.run import Run
from melpatch.workflows.pretrain import pretrain_defaults
from melpatch.workflows.teacher import FILE, open_teacher

STUDENT = ("--encoder.embed-dim", "16", "--encoder.depth", "1", "--encoder.num-heads", "2")
FEW = ("--steps", "4", "--evaluations", "1", "--log-every", "1", *SHORT, *STUDENT)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """A corpus, an own run, a classifier and a file of other code's weights."""
    folder = tmp_path_factory.mktemp("sounds")
    write_corpus(folder / "sounds")
    write_run(folder / "run", settings(embed_dim=32, seconds=2.0))
    write_run(folder / "classifier", settings(labels=("high", "low", "noise"), embed_dim=32))
    save_file(drawn(cnn14(width=4)), folder / "cnn14.safetensors")
    return folder


def distil(sounds, out, teacher="run", *words):
    """Distil in a process of its own settings, and return what was logged of the steps."""
    data = ("--data", sounds / "sounds" / "corpus.csv")
    melpatch(
        "pretrain",
        "distill",
        *data,
        "--out",
        out,
        "--objective.teacher",
        sounds / teacher,
        *FEW,
        *words,
    )
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def refused(sounds, tmp_path, capsys, *words):
    """Return the only line of an error."""
    data = ("--data", str(sounds / "sounds" / "corpus.csv"))
    command = ("pretrain", "distill", *data, "--out", str(tmp_path / "out"), *FEW, *map(str, words))
    assert main(list(command)) == 2
    assert not (tmp_path / "out" / "config.toml").exists()
    return [line for line in capsys.readouterr().err.splitlines() if "error" in line][-1]


def test_a_run_teaches_a_smaller_one(sounds, tmp_path):
    losses = distil(sounds, tmp_path / "student")
    assert len(losses) == 4
    assert losses[0]["target_variance"] == pytest.approx(1.0, abs=0.5)
    config = from_toml(RunConfig, tmp_path / "student" / "config.toml")
    network = config.objective.network
    assert (network.vector_dim, network.layer_dims) == (32, (32, 32))
    # By default the student hears what the teacher hears.
    assert network.front_end == settings().front_end
    assert replace(config.front_end, mean=0.0, std=1.0) == replace(
        network.front_end, mean=0.0, std=1.0
    )
    weights = load_weights(tmp_path / "student" / "model.safetensors")
    assert weights["target_heads.pooled.std"].std() > 0  # measured on the corpus
    theirs = load_weights(sounds / "run" / "model.safetensors")
    kept = load_weights(tmp_path / "student" / FILE)
    assert all(torch.equal(value, theirs[name]) for name, value in kept.items())
    model = package.load(tmp_path / "student")
    # Two rows of tokens of 16 channels, beside mean and deviation of 16 mel bins each.
    assert model.embed(sounds / "sounds" / "high" / "0.wav").shape == ((16 + 2 * 16) * 2 * 3,)


def test_a_resumed_run_needs_its_folder_only_and_is_the_same(sounds, tmp_path, monkeypatch):
    there = tmp_path / "there"
    shutil.copytree(sounds, there)
    whole = distil(there, tmp_path / "whole", "run", "--save-every", "2")
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "resume" / "step-000000004")
    (there / "run" / "model.safetensors").unlink()
    assert distil(there, tmp_path / "again", "run", "--save-every", "2", "--resume") == whole
    weights = [load_weights(tmp_path / name / "model.safetensors") for name in ("whole", "again")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_run_without_its_teachers_weights_is_not_resumed(sounds, tmp_path, capsys):
    distil(sounds, tmp_path / "out")
    (tmp_path / "out" / FILE).unlink()
    words = ("pretrain", "distill", "--out", str(tmp_path / "out"), "--resume")
    assert main(list(words)) == 2
    assert f"{FILE}: no such file" in capsys.readouterr().err


def test_published_weights_teach_at_their_own_rate(sounds, tmp_path):
    losses = distil(
        sounds, tmp_path / "student", "cnn14.safetensors", "--front-end.sample-rate", "16000"
    )
    assert all(line["loss"] > 0 for line in losses)
    config = from_toml(RunConfig, tmp_path / "student" / "config.toml")
    assert config.objective.network.front_end.sample_rate == 32000
    assert config.objective.network.encoder.width == 4
    assert config.front_end.sample_rate == 16000
    objective = build(replace(config, objective=replace(config.objective, teacher="")))
    assert objective.wave_rate == 32000


def test_a_classifier_teaches_its_labels(sounds, tmp_path):
    losses = distil(sounds, tmp_path / "student", "classifier", "--objective.labels", "1")
    assert {"agreement", "loss_labels"} <= losses[-1].keys()
    config = from_toml(RunConfig, tmp_path / "student" / "config.toml")
    assert config.objective.network.labels == ("high", "low", "noise")
    assert config.labels == ()


def test_a_teacher_is_measured_before_a_budget_and_handed_to_its_trial(sounds, tmp_path):
    data = ("--data", sounds / "sounds" / "corpus.csv", "--objective.teacher", sounds / "run")
    short = ("--budget", "40s", "--evaluations", "1", *SHORT, *STUDENT)
    melpatch("pretrain", "distill", *data, "--out", tmp_path / "run", *short, "--save-every", "50")
    assert (tmp_path / "run" / FILE).exists()


def test_clips_are_heard_once_if_the_cache_is_asked_for(sounds, tmp_path):
    words = (
        "--objective.cache-mib",
        "10",
        "--seconds",
        "2",
        "--steps",
        "6",
        "--short-clips",
        "pad",
    )
    cached = distil(sounds, tmp_path / "cached", "run", *words, "--objective.tokens", "0")
    plain = distil(
        sounds,
        tmp_path / "plain",
        "run",
        *words,
        "--objective.tokens",
        "0",
        "--objective.cache-mib",
        "0",
    )
    for one, other in zip(cached, plain, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


def test_a_teacher_that_is_missing_or_is_none_is_refused(sounds, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for words, message in (
        ((), "--objective.teacher is missing; give a run folder"),
        (("--objective.teacher", "nowhere"), "this is nowhere, which does not exist"),
        (("--objective.teacher", "w.pth"), "w.pth: no such file"),
        (("--objective.teacher", tmp_path / "empty"), "which holds no config.toml"),
    ):
        line = refused(sounds, tmp_path, capsys, *words)
        assert message in line


def test_a_teacher_in_the_output_folder_is_refused(sounds, tmp_path, capsys):
    shutil.copytree(sounds / "run", tmp_path / "same")
    data = ("--data", str(sounds / "sounds" / "corpus.csv"), "--out", str(tmp_path / "same"))
    assert (
        main(["pretrain", "distill", *data, "--objective.teacher", str(tmp_path / "same"), *FEW])
        == 2
    )
    assert "holds a run already" in capsys.readouterr().err


def test_labels_of_a_teacher_without_a_head_are_refused(sounds, tmp_path, capsys):
    words = ("--objective.teacher", sounds / "run", "--objective.labels", "1")
    line = refused(sounds, tmp_path, capsys, *words)
    assert "--objective.labels 1.0; allowed: 0, since the teacher is no classifier" in line


def test_a_teacher_of_shorter_sound_is_refused(sounds, tmp_path, capsys):
    write_run(tmp_path / "short", settings(seconds=0.5))
    line = refused(sounds, tmp_path, capsys, "--objective.teacher", tmp_path / "short")
    assert "--seconds 1.0; allowed: up to 0.5, the most that the teacher hears at once" in line


def test_a_teacher_that_says_the_same_of_all_clips_is_refused(sounds, tmp_path, capsys):
    config = settings(embed_dim=32)
    run = Run.create(tmp_path / "dead", config)
    state = {name: torch.zeros_like(value) for name, value in build(config).state_dict().items()}
    save_weights(run.folder / "model.safetensors", state)
    line = refused(sounds, tmp_path, capsys, "--objective.teacher", tmp_path / "dead")
    assert "makes the same pooled of all clips, so there is nothing to learn" in line


def test_a_teacher_larger_than_the_memory_is_refused(sounds, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("melpatch.training.size.memory_bytes", lambda: 100_000)
    line = refused(sounds, tmp_path, capsys, "--objective.teacher", sounds / "run")
    assert "objective.teacher = " in line
    assert "GiB" in line


def test_a_teacher_of_a_run_is_its_encoder_and_of_a_classifier_all_of_it(sounds, tmp_path):
    encoder = open_teacher(str(sounds / "run"), tmp_path)
    assert (encoder.config.labels, encoder.config.vector_dim) == ((), 32)
    classifier = open_teacher(str(sounds / "classifier"), tmp_path)
    # Its pooling keeps the two rows of patches.
    assert (len(classifier.config.labels), classifier.config.vector_dim) == (3, 64)
    assert open_teacher(str(sounds / "classifier"), tmp_path, "mean").config.vector_dim == 32
    assert Distill.Config().network is None


def test_the_student_has_its_own_front_end_if_it_is_given_a_rate(sounds):
    defaults = pretrain_defaults("distill", teacher=str(sounds / "cnn14.safetensors"))
    assert (defaults.training.front_end.sample_rate, defaults.training.front_end.n_mels) == (
        32000,
        64,
    )
    defaults = pretrain_defaults(
        "distill", teacher=str(sounds / "cnn14.safetensors"), own_rate=True
    )
    assert defaults.training.front_end == recipe("distill")("tiny").front_end
    shorter = pretrain_defaults("distill", teacher=str(sounds / "classifier"))
    assert shorter.training.loader.seconds == 1.0


def test_python_takes_a_teacher_too(sounds, tmp_path):
    run = package.pretrain(
        data=sounds / "sounds" / "corpus.csv",
        objective={"name": "distill", "teacher": str(sounds / "run")},
        encoder={"embed_dim": 16, "depth": 1, "num_heads": 2},
        out=tmp_path / "student",
        size="nano",
        steps=1,
        workers=0,
        batch_size=4,
    )
    assert run.config.front_end.n_mels == 32


def test_a_student_that_is_given_away_names_no_path(sounds, tmp_path):
    distil(sounds, tmp_path / "student")
    melpatch("export", tmp_path / "student", "--to", "run", "--out", tmp_path / "given")
    text = (tmp_path / "given" / "config.toml").read_text()
    assert str(sounds) not in text
    assert not (tmp_path / "given" / FILE).exists()
    assert package.load(tmp_path / "given").config.objective.network is not None


def test_a_teacher_of_strangers_code_stays_closed(sounds, tmp_path, capsys):
    shutil.copytree(sounds / "run", tmp_path / "strange")
    path = tmp_path / "strange" / "config.toml"
    path.write_text(path.read_text().replace('name = "vit"', 'name = "strangers.code:Evil"'))
    line = refused(sounds, tmp_path, capsys, "--objective.teacher", tmp_path / "strange")
    assert "names 'strangers.code:Evil'" in line
    assert "--trust-code" in line
