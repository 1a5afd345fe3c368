"""``melpatch finetune``: where its weights and labels come from, which clips train, and what it refuses."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from interop.inventories import drawn, timm
from journeys.three_sounds import (
    LABELS,
    SHORT,
    SMALL,
    melpatch,
    read_table,
    settings,
    write_corpus,
    write_folder,
    write_run,
    write_table,
)
from safetensors.torch import save_file

from melpatch.audio.logmel import LogMel
from melpatch.checkpoint import load_weights
from melpatch.cli import main
from melpatch.commands.finetune import parse
from melpatch.config import from_toml
from melpatch.encoders.cnn14 import CNN14
from melpatch.evaluation.evaluate import evaluate
from melpatch.evaluation.temperature import fit_temperature
from melpatch.inference.model import Model, load
from melpatch.nn.positions import resize
from melpatch.recipes.base import recipe_names, recipe_settings
from melpatch.training.config import RunConfig

HERE = ("--steps", "2", "--no-probe", *SHORT)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("sounds"))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "pretrained", settings(depth=1))


def finetune(corpus, out, *words):
    melpatch("finetune", "--data", corpus, "--out", out, *HERE, *words)
    return from_toml(RunConfig, out / "config.toml")


def encoder_of(run):
    state = load_weights(run / "model.safetensors")
    return {name: value for name, value in state.items() if name.startswith("encoder.")}


def validated(run):
    """The validation scores of a run, by step."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [
        {name for name in line if name.startswith("val_")} for line in lines if "loss" not in line
    ]


def test_ears_and_encoder_come_from_the_pretrained_run(corpus, pretrained, tmp_path, capsys):
    config = finetune(corpus, tmp_path / "run", "--init", pretrained, "--objective.frozen")
    theirs = from_toml(RunConfig, pretrained / "config.toml")
    assert (config.front_end, config.encoder) == (theirs.front_end, theirs.encoder)
    assert (config.labels, config.objective.multi_label) == (LABELS, False)
    before, after = encoder_of(pretrained), encoder_of(tmp_path / "run")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    told = capsys.readouterr().err
    assert "9 labelled clips of 3 classes" in told
    assert "best accuracy on validation" in told


def test_all_weights_are_trained_unless_frozen(corpus, pretrained, tmp_path):
    finetune(corpus, tmp_path / "run", "--init", pretrained)
    before, after = encoder_of(pretrained), encoder_of(tmp_path / "run")
    assert not any(
        torch.equal(before[name], after[name]) for name in before if name.endswith("weight")
    )


def test_scratch_like_a_run_takes_its_settings_and_none_of_its_weights(
    corpus, pretrained, tmp_path
):
    words = ("--init", "scratch", "--encoder-from", pretrained, "--seed", "5")
    config = finetune(corpus, tmp_path / "run", *words, "--objective.frozen")
    theirs = from_toml(RunConfig, pretrained / "config.toml")
    assert (config.front_end, config.encoder) == (theirs.front_end, theirs.encoder)
    before, after = encoder_of(pretrained), encoder_of(tmp_path / "run")
    weights = [name for name in before if name.endswith("weight") and "norm" not in name]
    assert weights
    assert not any(torch.allclose(before[name], after[name], atol=1e-4) for name in weights)


def test_scratch_measures_its_statistics_on_what_trains(corpus, tmp_path, capsys):
    config = finetune(corpus, tmp_path / "run", "--init", "scratch", "--size", "nano", *SMALL)
    capsys.readouterr()
    melpatch("stats", corpus, "--seconds", "1", "--front-end.n-mels", "32", "--json")
    found = json.loads(capsys.readouterr().out)
    assert config.front_end.mean == pytest.approx(found["mean"], abs=1e-4)
    assert config.front_end.std == pytest.approx(found["std"], abs=1e-4)


def test_statistics_may_be_given(corpus, tmp_path):
    given = ("--front-end.mean", "-5", "--front-end.std", "3", "--stats-clips", "0")
    config = finetune(
        corpus, tmp_path / "run", "--init", "scratch", "--size", "nano", *SMALL, *given
    )
    assert (config.front_end.mean, config.front_end.std) == (-5.0, 3.0)


def test_other_peoples_weights_fill_an_encoder_of_the_recipe(corpus, tmp_path, capsys):
    foreign = {name: value.float() for name, value in drawn(timm(16, 1, patches=16)).items()}
    save_file(foreign, tmp_path / "vit.safetensors")
    words = (
        "--init",
        tmp_path / "vit.safetensors",
        *SMALL,
        "--encoder.positions",
        "learned",
        "--objective.frozen",
    )
    config = finetune(
        corpus, tmp_path / "run", *words, "--init-channels", "mean", "--resize-positions", "bicubic"
    )
    ours = encoder_of(tmp_path / "run")
    table = resize(foreign["pos_embed"][0, 1:], (4, 4), (2, 7), "bicubic")
    assert torch.equal(ours["encoder.position_table"], table)
    kernel = foreign["patch_embed.proj.weight"].mean(dim=1).flatten(1)
    assert torch.equal(ours["encoder.projection.weight"], kernel)
    told = capsys.readouterr().err
    assert "the encoder starts from" in told
    assert "3 colours averaged; positions 4 x 4 fitted to 2 x 7 (bicubic); left out: head" in told
    assert (
        config.front_end.mean != LogMel.Config().mean
    )  # measured, as nobody else's ears are known
    assert config.train.layer_decay == 0.8


def test_another_encoder_takes_the_place_of_the_recipes(corpus, tmp_path):
    words = (
        "--encoder",
        "cnn14",
        "--encoder.width",
        "2",
        "--size",
        "nano",
        "--front-end.n-mels",
        "32",
    )
    config = finetune(corpus, tmp_path / "run", "--init", "scratch", *words)
    assert config.encoder == CNN14.Config(width=2)
    again = finetune(corpus, tmp_path / "again", "--init", tmp_path / "run")
    assert again.encoder == config.encoder


def test_every_recipe_with_labels_can_be_chosen():
    allowed = recipe_names(with_labels=True)
    assert {"classify", "finetune"} <= set(allowed)
    for name in allowed:
        config = parse(["--init", "scratch", "--out", "x", "--recipe", name, "--size", "nano"])
        assert config.recipe == name
        assert (
            config.training == recipe_settings(name, "nano", None, with_labels=True)
            or name == "finetune"
        )


def test_a_recipe_takes_ears_and_encoder_of_a_run_and_all_else_from_itself(pretrained):
    config = parse(["--init", str(pretrained), "--out", "x", "--recipe", "maskspec_finetune"])
    theirs = from_toml(RunConfig, pretrained / "config.toml")
    recipe = recipe_settings("maskspec_finetune", "tiny", None, with_labels=True)
    encoder = replace(theirs.encoder, drop_path=0.1)  # which changes nothing about the weights
    assert (recipe.encoder.drop_path, theirs.encoder.drop_path) == (0.1, 0.0)
    assert config.training == replace(recipe, front_end=theirs.front_end, encoder=encoder)
    assert config.stats_clips == 0


def test_ears_of_a_fixed_length_are_given_no_more_than_they_hear(tmp_path):
    short = settings(depth=1, seconds=0.5)
    short = replace(short, front_end=replace(short.front_end, padding="legacy", target_frames=48))
    run = write_run(tmp_path / "short", short)
    assert parse(["--init", str(run), "--out", "x"]).training.loader.seconds == 0.5


def test_blocks_that_know_nothing_learn_at_the_full_rate_in_our_own_recipe():
    words = ["--out", "x", "--size", "nano"]
    assert parse(["--init", "scratch", *words]).training.train.layer_decay == 1.0
    assert parse(["--init", "weights.pth", *words]).training.train.layer_decay == 0.8


@pytest.mark.parametrize(
    "words", [("--size", "nano"), ("--encoder", "vit"), ("--encoder-from", "elsewhere")]
)
def test_what_a_run_settles_is_not_asked_for(corpus, pretrained, words, tmp_path, capsys):
    asked = [
        "finetune",
        "--data",
        str(corpus),
        "--out",
        str(tmp_path / "x"),
        "--init",
        str(pretrained),
        *words,
    ]
    assert main(asked) == 2
    told = capsys.readouterr().err
    assert (
        f"{words[0]} {words[1]}; allowed: nothing, since front end and encoder are those of" in told
    )


def test_without_validation_the_last_weights_are_kept_and_it_is_said(tmp_path, pretrained, capsys):
    folder = write_folder(tmp_path / "sounds", per_class=2)
    finetune(folder, tmp_path / "run", "--init", pretrained)
    assert "no validation split: the last weights are kept, not the best" in capsys.readouterr().err
    (last,) = (tmp_path / "run" / "resume").iterdir()
    kept, latest = (load_weights(run / "model.safetensors") for run in (tmp_path / "run", last))
    assert all(torch.equal(kept[name], latest[name]) for name in latest)
    assert validated(tmp_path / "run") == []


def test_windows_far_longer_than_the_clips_are_told(corpus, pretrained, tmp_path, capsys):
    finetune(corpus, tmp_path / "long", "--init", pretrained, "--seconds", "5")
    told = capsys.readouterr().err
    assert "and windows last 5 s: to find such sounds in longer recordings (predict --hop)" in told
    finetune(corpus, tmp_path / "short", "--init", pretrained, "--seconds", "1")
    assert "windows last" not in capsys.readouterr().err


def test_folds_divide_the_clips(corpus, pretrained, tmp_path, capsys):
    fold = ("--init", pretrained, "--split-column", "fold", "--test-fold", "0")
    finetune(corpus, tmp_path / "a", *fold)
    told = capsys.readouterr().err
    assert "12 labelled clips" in told
    assert "no validation split" in told
    finetune(corpus, tmp_path / "b", *fold, "--val-fold", "1")
    told = capsys.readouterr().err
    assert "6 labelled clips" in told
    assert "no validation split" not in told
    names = ("accuracy", "balanced_accuracy", "macro_f1", "majority_rate")
    assert validated(tmp_path / "b") == [{f"val_{name}" for name in names}] * 2


def uneven(corpus):
    """The corpus with the test clips of one class among the validation clips."""
    rows = []
    for row in read_table(corpus):
        moved = (row["label"], row["split"]) == ("high", "test")
        rows.append((row["path"], row["label"], "val" if moved else row["split"]))
    return write_table(corpus.with_name("uneven.csv"), ("path", "label", "split"), rows)


def test_uneven_classes_are_judged_by_balanced_accuracy_and_it_is_said(
    corpus, pretrained, tmp_path, capsys
):
    config = finetune(uneven(corpus), tmp_path / "run", "--init", pretrained)
    assert config.objective.select_by == "balanced_accuracy"
    told = capsys.readouterr().err
    assert (
        "the weights with the best balanced accuracy on validation are kept, since 27% of" in told
    )
    record = json.loads((tmp_path / "run" / "validation.json").read_text(encoding="utf-8"))
    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    scored = [line for line in lines if "val_accuracy" in line]
    best = max(scored, key=lambda line: line["val_balanced_accuracy"])
    assert (record["selected_by"], record["clips"]) == ("balanced_accuracy", 5)
    assert record["step"] == best["step"]
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "majority_rate"):
        assert record["metrics"][name] == pytest.approx(best[f"val_{name}"])
    assert record["metrics"]["majority_rate"] == 0.6
    assert f"best balanced accuracy on validation {best['val_balanced_accuracy']:.3f}" in told
    assert "majority 0.600)" in told
    # Two steps of a small network do not separate three classes.
    (warning,) = record["warnings"]
    assert f"\n{warning}\n" in told
    assert warning.startswith("on validation ")


def test_another_metric_may_choose_the_weights(corpus, pretrained, tmp_path, capsys):
    asked = ("--objective.select-by", "macro_f1", "--objective.loss-weights", "sqrt")
    config = finetune(uneven(corpus), tmp_path / "run", "--init", pretrained, *asked)
    assert config.objective.select_by == "macro_f1"
    assert config.objective.class_weights == pytest.approx((1, 1, 1))
    assert "the weights with the best macro F1 on validation are kept; " in capsys.readouterr().err


def test_few_labels_are_so_many_of_each_class(corpus, pretrained, tmp_path, capsys):
    finetune(corpus, tmp_path / "run", "--init", pretrained, "--labels-per-class", "2")
    assert "6 labelled clips of 3 classes" in capsys.readouterr().err


def test_more_labels_than_there_are_is_said(corpus, pretrained, tmp_path, capsys):
    finetune(corpus, tmp_path / "run", "--init", pretrained, "--labels-per-class", "100")
    told = capsys.readouterr().err
    assert "3 classes have fewer than 100 clips, such as high with 3; all are used" in told
    assert "9 labelled clips" in told


def test_several_labels_make_it_a_multi_label_task(corpus, pretrained, tmp_path, capsys):
    rows = [(row["path"], f"{row['label']};sound", row["split"]) for row in read_table(corpus)]
    several = write_table(corpus.with_name("several.csv"), ("path", "label", "split"), rows)
    config = finetune(several, tmp_path / "run", "--init", pretrained)
    assert config.objective.multi_label
    assert config.labels == (*LABELS, "sound")
    assert validated(tmp_path / "run") == [{"val_mAP"}] * 2


@pytest.mark.parametrize("probe", ["--probe", "--no-probe"])
def test_validation_clips_that_rank_nothing_are_refused(
    probe, corpus, pretrained, tmp_path, capsys
):
    rows = [(row["path"], "a;b", row["split"]) for row in read_table(corpus)]
    same = write_table(corpus.with_name("same.csv"), ("path", "label", "split"), rows)
    words = [
        "finetune",
        "--data",
        str(same),
        "--init",
        str(pretrained),
        "--out",
        str(tmp_path / "run"),
        *HERE,
        probe,
    ]
    assert main(words) == 2
    assert (
        "no class has validation clips both with and without it, so mAP" in capsys.readouterr().err
    )


def test_a_damaged_file_costs_nothing_but_itself(corpus, pretrained, tmp_path, capsys):
    (corpus.parent / "bad.wav").write_bytes(b"RIFF, but no more")
    rows = [*((row["path"], row["label"]) for row in read_table(corpus)), ("bad.wav", "low")]
    listed = write_table(corpus.with_name("damaged.csv"), ("path", "label"), rows)
    finetune(listed, tmp_path / "run", "--init", pretrained)
    told = capsys.readouterr().err
    assert "1 file of" in told
    assert "18 labelled clips" in told


def test_a_run_is_gone_on_with_under_its_own_settings(corpus, pretrained, tmp_path, capsys):
    words = ("--init", pretrained, "--resume")
    finetune(corpus, tmp_path / "run", *words)
    assert "holds no run yet; starting one" in capsys.readouterr().err
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    finetune(corpus, tmp_path / "run", *words)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    asked = ["finetune", "--data", corpus, "--out", tmp_path / "run", *HERE, *words, "--lr", "0.5"]
    assert main([str(word) for word in asked]) == 2
    assert "--lr = 0.5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--init", "scratch", "--labels-per-class", "0"),
            "--labels-per-class 0; allowed: 1 or more",
        ),
        (("--init", "scratch", "--size", "huge"), "--size huge; allowed: nano"),
        (
            ("--init", "scratch", "--test-fold", "9"),
            "no split or fold is called '9'; there are: test (6), train (9)",
        ),
        (("--init", "scratch", "--val-fold", "9"), "no split or fold is called '9'"),
        (
            ("--init", "nowhere"),
            "--init nowhere; allowed: a run folder, a folder of Hugging Face, a weight file (.safetensors, ",
        ),
        (("--init", "nowhere.pth"), "nowhere.pth: no such file; give a weight file"),
        (
            ("--init", "scratch", "--recipe", "nope"),
            "unknown recipe or objective 'nope'; available: ",
        ),
        (
            ("--init", "scratch", "--recipe", "ssast"),
            "ssast learns without labels, so it trains no classifier; allowed",
        ),
        (
            ("--init", "scratch", "--encoder", "nope"),
            "unknown encoder 'nope'; available: beats, byol_a, cnn14, vit",
        ),
        (("--init", "scratch", "--stats-clips", "-1"), "--stats-clips -1; allowed: 0 or more"),
        (("--init", "scratch", "--encoder-from", "nowhere"), "config.toml: cannot be read"),
        (("--init", "scratch", "--data"), "--data is missing"),
        (
            ("--init", "scratch", "--label-column", "species"),
            "no column 'species'; found: 'path', 'label', 'split'",
        ),
        ((), "--init"),
    ],
)
def test_what_cannot_be_trained_is_exit_code_2_with_advice(
    corpus, words, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["finetune", "--data", str(corpus), "--out", "x", *SHORT, *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


def test_sound_without_labels_is_refused(corpus, tmp_path, capsys):
    bare = write_table(
        corpus.with_name("bare.csv"), ("path",), [(row["path"],) for row in read_table(corpus)]
    )
    one = write_table(
        corpus.with_name("one.csv"),
        ("path", "label"),
        [(row["path"], "a") for row in read_table(corpus)],
    )
    for listed, message in (
        (bare, "name another column with --label-column"),
        (one, "a classifier needs two or more"),
    ):
        words = [
            "finetune",
            "--data",
            str(listed),
            "--init",
            "scratch",
            "--size",
            "nano",
            "--out",
            str(tmp_path / "x"),
        ]
        assert main([*words, *HERE]) == 2
        assert message in capsys.readouterr().err


def test_help_tells_of_every_flag_unit_and_default(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")  # wider, and tyro sets the options side by side
    assert main(["finetune", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for part in (
        "--init TEXT Run folder, weight file or hf:owner/name (a Hub repository) whose encoder to start from, or",
        "--recipe TEXT A recipe that learns from labels: finetune, for your own data, or a paper's",
        "Recipes: ",
        "--encoder TEXT Kind of encoder: vit, beats, cnn14 or byol_a",
        "--encoder.patch INT INT Patch size",
        "--test-fold TEXT Split or fold held out for the test; all others, except val, are trained on.",
        "--seconds FLOAT Longest segment, in seconds;",
        "--objective.label-smoothing FLOAT",
    ):
        assert part in told


@pytest.mark.parametrize("split", ["split", "fold"])
def test_averaged_weights_are_told_to_be_so(corpus, pretrained, tmp_path, capsys, split):
    more = ("--average-last", "0.6", "--evaluations", "2", "--split-column", split)
    finetune(corpus, tmp_path / "run", "--init", pretrained, *more)
    told = capsys.readouterr().err
    assert "run; the mean of the weights after the last 2 evaluations" in told
    assert "best accuracy" not in told
    assert "the last weights are kept" not in told


def test_a_classifier_is_calibrated_on_its_validation_clips(tmp_path, pretrained, capsys):
    corpus = write_corpus(tmp_path / "sounds", per_class=24)
    out = tmp_path / "run"
    finetune(corpus, out, "--init", pretrained, "--thresholds", "precision=0.5")
    told = " ".join(capsys.readouterr().err.split())
    assert "calibrated on 12 validation clips: temperature" in told
    assert "thresholds by precision=0.5" in told
    model = load(out)
    assert model.calibration.clips == 12
    assert model.calibration.threshold_rule == "precision=0.5"
    assert len(model.calibration.novelty.held_out) == 12
    # What is learnt is that of the validation clips as predict hears them.
    raw = Model(model.config, model.objective)
    rows = read_table(corpus)
    val = [row for row in rows if row["split"] == "val"]
    predictions = [raw.predict(corpus.parent / row["path"])[0].probabilities for row in val]
    probabilities = np.array([[*one.values()] for one in predictions], np.float32)
    targets = np.array([[float(row["label"] == name) for name in model.labels] for row in val])
    temperature = fit_temperature(probabilities, targets.astype(np.float32), False)
    assert model.calibration.temperature == pytest.approx(temperature, rel=0.01)
    # Scores are those of the calibrated answers, with the error before and after.
    record = evaluate(out, corpus, floors=False)["as_trained"]
    calibration = record["calibration"]
    assert calibration["temperature"] == model.calibration.temperature
    assert calibration["ece_uncalibrated"] is not None
    assert (out / "evaluation").exists()
    assert [*(out / "evaluation").rglob("reliability.png")]


def test_a_new_training_starts_without_the_old_calibration(corpus, pretrained, tmp_path):
    out = tmp_path / "run"
    finetune(corpus, out, "--init", pretrained)
    (out / "calibration.safetensors").write_bytes(b"damaged")
    assert main(["predict", str(out), str(corpus), "--out", str(tmp_path / "a.csv")]) == 2
    finetune(corpus, out, "--init", pretrained, "--resume")
    assert load(out).calibration is not None


def test_a_rule_for_thresholds_is_refused_before_the_training(corpus, pretrained, tmp_path, capsys):
    words = ["--data", corpus, "--out", tmp_path / "run", "--init", pretrained, *HERE]
    assert main(["finetune", *map(str, words), "--thresholds", "best"]) == 2
    assert "--thresholds best; allowed: auto, none, f1, or precision" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
