"""``melpatch pretrain``: what its flags do to a run, what it leaves behind, and what it refuses."""

import json
import tomllib
from dataclasses import replace

import pytest
import torch
from interop.inventories import drawn, timm
from journeys.three_sounds import (
    LABELS,
    SHORT,
    SMALL,
    melpatch,
    settings,
    write_corpus,
    write_run,
    write_sound,
)

from melpatch.checkpoint import load_weights
from melpatch.cli import main
from melpatch.commands.pretrain import parse
from melpatch.config import from_toml
from melpatch.data.manifest import load_corpus
from melpatch.encoders.cnn14 import CNN14
from melpatch.encoders.vit import ViT
from melpatch.nn.positions import resize
from melpatch.objectives.ssast import SSAST
from melpatch.training.config import RunConfig, build
from melpatch.training.health import EmbeddingHealth
from melpatch.training.start import fitted


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("sounds"))


def pretrain(corpus, out, *words, recipe="ssast", small=SMALL):
    melpatch(
        "pretrain",
        recipe,
        "--data",
        corpus,
        "--out",
        out,
        "--steps",
        "2",
        "--evaluations",
        "1",
        *SHORT,
        *small,
        *words,
    )


def config_of(run):
    return from_toml(RunConfig, run / "config.toml")


def metrics_of(run):
    return [
        json.loads(line)
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def test_it_is_told_how_little_of_long_recordings_a_pass_hears(tmp_path, capsys):
    for number, seconds in enumerate((0.5, 0.5, 9.0)):
        write_sound(tmp_path / "sounds" / f"{number}.wav", "noise", seconds, 8000, number)
    pretrain(tmp_path / "sounds", tmp_path / "run")
    told = capsys.readouterr().err
    assert "an epoch covers" in told
    assert "the longest clip has 9 s" in told


def test_a_run_folder_holds_settings_metrics_and_weights(corpus, tmp_path, capsys):
    out = tmp_path / "run"
    pretrain(corpus, out, "--evaluations", "1")
    told = capsys.readouterr().err
    assert "9 clips" in told  # without val and test
    assert f"done: {out}" in told
    config = config_of(out)
    assert config.data == (str(corpus),)
    assert (config.train.steps, config.loader.seconds, config.labels) == (2, 1.0, ())
    assert config.encoder == ViT.Config(embed_dim=16, depth=1, num_heads=2)
    assert isinstance(config.objective, SSAST.Config)
    assert [line["step"] for line in metrics_of(out)] == [1, 2, 2]
    assert {"loss", "nce", "mse", "lr", "grad_norm"} <= metrics_of(out)[0].keys()
    assert metrics_of(out)[-1].keys() == {"step", "embedding_std", "effective_rank"}
    assert "encoder.projection.weight" in load_weights(out / "model.safetensors")
    assert json.loads((out / "environment.json").read_text(encoding="utf-8"))[0]["packages"][
        "melpatch"
    ]


def test_statistics_are_measured_unless_they_are_given(corpus, tmp_path, capsys):
    pretrain(corpus, tmp_path / "measured")
    melpatch(
        "stats",
        corpus,
        "--seconds",
        "1",
        "--front-end.n-mels",
        "32",
        "--front-end.scale",
        "1",
        "--json",
    )
    found = json.loads(capsys.readouterr().out)
    front = config_of(tmp_path / "measured").front_end
    assert (front.mean, front.std) == (
        pytest.approx(found["mean"], abs=1e-4),
        pytest.approx(found["std"], abs=1e-4),
    )
    pretrain(
        corpus,
        tmp_path / "given",
        "--stats-clips",
        "0",
        "--front-end.mean",
        "-5",
        "--front-end.std",
        "3",
    )
    front = config_of(tmp_path / "given").front_end
    assert (front.mean, front.std) == (-5.0, 3.0)


@pytest.mark.parametrize(
    ("words", "clips"),
    [
        (("--exclude-splits", "train"), 9),
        (("--exclude-splits",), 18),
        (("--split-column", "fold"), 18),
    ],
)
def test_splits_that_stay_out(corpus, tmp_path, capsys, words, clips):
    pretrain(corpus, tmp_path / "run", *words)
    assert f"{clips} clips, " in capsys.readouterr().err


def test_folds_that_stay_out(corpus, tmp_path, capsys):
    pretrain(corpus, tmp_path / "run", "--split-column", "fold", "--exclude-splits", "0", "2")
    assert "6 clips, " in capsys.readouterr().err


def test_an_encoder_may_be_gone_on_with(corpus, tmp_path):
    first = write_run(tmp_path / "first", settings(depth=1))
    pretrain(corpus, tmp_path / "second", "--init", first, "--lr", "1e-9", "--seed", "7")
    before, after = (
        load_weights(run / "model.safetensors") for run in (first, tmp_path / "second")
    )
    names = [name for name in before if name.startswith("encoder.")]
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in names)
    assert not torch.allclose(before["mask_embed"], after["mask_embed"], atol=1e-3)


def test_front_end_and_encoder_of_a_run_need_not_be_given_again(corpus, tmp_path, capsys):
    config = settings(seconds=0.5, embed_dim=24, depth=3, num_heads=3, patch=(8, 8))
    config = replace(config, front_end=replace(config.front_end, hop_ms=20.0, mean=-3.0))
    first = write_run(tmp_path / "first", config)
    out = tmp_path / "second"
    pretrain(corpus, out, "--init", first, recipe="eat-short", small=("--encoder.drop-path", "0.1"))
    assert f"front end and encoder are as in {first}, apart from" in capsys.readouterr().err
    ours = config_of(out)
    assert ours.encoder == replace(config.encoder, drop_path=0.1)
    assert (ours.front_end.hop_ms, ours.front_end.n_mels) == (20.0, 32)
    # Mean and std are those of the new corpus.
    assert ours.front_end.mean != -3.0


def test_a_recipe_fits_its_heads_to_the_size_of_the_run(tmp_path):
    config = replace(settings(), encoder=ViT.Config.of_size("nano"))
    first = write_run(tmp_path / "first", config)
    parsed = parse(["data2vec", "--out", "x", "--init", str(first)])
    assert (parsed.size, parsed.training.encoder.depth) == ("nano", 4)
    assert parsed.training.objective.target_layers == 4
    assert (
        parse(["m2d-short", "--out", "x", "--init", str(first)]).training.objective
        == parse(["m2d-short", "--out", "x", "--size", "nano"]).training.objective
    )


def test_help_reads_no_weights(capsys):
    with pytest.raises(SystemExit):
        parse(["ssast", "--init", "nowhere", "--help"])
    assert "--init" in capsys.readouterr().out


def test_other_peoples_weights_may_be_gone_on_with(corpus, tmp_path, capsys):
    foreign = {name: value.float() for name, value in drawn(timm(16, 1, patches=16)).items()}
    torch.save({"model": foreign}, tmp_path / "mae.pth")
    words = ("--init", tmp_path / "mae.pth", "--init-channels", "mean", "--lr", "1e-9")
    pretrain(corpus, tmp_path / "run", *words)
    assert (
        f"the encoder starts from {tmp_path / 'mae.pth'}: a ViT under timm's names"
        in capsys.readouterr().err
    )
    ours = load_weights(tmp_path / "run" / "model.safetensors")["encoder.projection.weight"]
    assert torch.allclose(
        ours, foreign["patch_embed.proj.weight"].mean(dim=1).flatten(1), atol=1e-6
    )
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    pretrain(corpus, tmp_path / "run", *words, "--resume")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_positions_of_a_run_are_fitted_as_asked(corpus, tmp_path):
    first = write_run(tmp_path / "first", settings(depth=1, positions="learned", columns=7))
    words = ("--init", first, "--encoder.positions", "learned", "--seconds", "0.5", "--lr", "1e-9")
    pretrain(corpus, tmp_path / "second", *words, "--resize-positions", "bicubic")
    before, after = (
        load_weights(run / "model.safetensors") for run in (first, tmp_path / "second")
    )
    columns = config_of(tmp_path / "second").encoder.columns
    expected = resize(before["encoder.position_table"], (2, 7), (2, columns), "bicubic")
    assert torch.allclose(after["encoder.position_table"], expected, atol=1e-6)


def test_another_encoder_takes_the_place_of_the_recipes():
    config = parse(
        ["cola", "--out", "x", "--size", "nano", "--encoder", "cnn14", "--encoder.dropout", "0.1"]
    )
    assert config.training.encoder == replace(CNN14.Config.of_size("nano"), dropout=0.1)
    assert parse(
        ["ssast", "--out", "x", "--encoder", "vit"]
    ).training.encoder == ViT.Config.of_size("tiny")
    assert (
        parse(["ssast_patch", "--out", "x", "--encoder", "vit"]).training.encoder.cls_tokens == 2
    )  # the recipe's own


def test_a_method_that_hides_tokens_wants_an_encoder_of_tokens(corpus, tmp_path, capsys):
    words = [
        "--data",
        str(corpus),
        "--out",
        str(tmp_path / "x"),
        "--encoder",
        "cnn14",
        "--stats-clips",
        "0",
        *SHORT,
    ]
    assert main(["pretrain", "ssast", *words]) == 2
    assert "SSAST works on patch tokens, which cnn14 does not have" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_learned_positions_are_as_long_as_the_segments(corpus, tmp_path):
    pretrain(corpus, tmp_path / "run", "--encoder.positions", "learned")
    assert config_of(tmp_path / "run").encoder.columns == 7


def test_the_gauge_hears_no_more_at_once_than_the_method(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(
        SSAST, "input_seconds", classmethod(lambda _, config, seconds: config.mask_ratio * seconds)
    )
    config = fitted(settings(positions="learned"))
    assert config.encoder.columns == 5  # for 0.75 of a second
    gauge = EmbeddingHealth(load_corpus([corpus]), config, build(config))
    assert max(clip.duration for clip in gauge.clips) == 0.75
    assert gauge.start["effective_rank"] > 1


def test_a_papers_recipe_does_a_step_on_ten_seconds(tmp_path):
    path = write_sound(tmp_path / "sounds" / "a.wav", "noise", 10.4)
    write_sound(path.with_name("b.wav"), "low", 2.0)
    melpatch("pretrain", "ssast_patch", "--size", "nano", "--data", path.parent, "--out", tmp_path / "run",
             "--steps", "1", "--batch-size", "2", "--workers", "0")  # fmt: skip
    config = config_of(tmp_path / "run")
    assert config.front_end.mean == -4.2677393  # AudioSet's
    assert config.objective.num_masked == 400
    assert metrics_of(tmp_path / "run")[0]["loss"] > 0


def test_a_run_is_gone_on_with_under_its_own_settings(corpus, tmp_path, capsys):
    out = tmp_path / "run"
    pretrain(corpus, out)
    before = (out / "metrics.jsonl").read_bytes()
    pretrain(corpus, out, "--resume")
    assert (out / "metrics.jsonl").read_bytes() == before
    words = [
        "pretrain",
        "ssast",
        "--data",
        str(corpus),
        "--out",
        str(out),
        "--resume",
        "--lr",
        "0.5",
    ]
    assert main(words) == 2
    assert "--lr = 0.5" in capsys.readouterr().err


def test_a_run_is_not_written_over_which_is_said_before_the_corpus_is_read(tmp_path, capsys):
    run = write_run(tmp_path / "run", settings())
    assert main(["pretrain", "ssast", "--data", "nowhere", "--out", str(run), *SHORT]) == 2
    assert (
        "holds a run already; add --resume to continue it, or give another --out"
        in capsys.readouterr().err
    )


def test_a_corpus_that_leaves_no_patch_visible_is_refused_before_a_folder_is_made(
    corpus, tmp_path, capsys
):
    words = [
        "--data",
        str(corpus),
        "--out",
        str(tmp_path / "run"),
        "--objective.num-masked",
        "1000",
        *SHORT,
    ]
    assert main(["pretrain", "ssast", *words]) == 2
    assert "--objective.num-masked 1000; allowed: 1 to" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "needs a recipe as its first word; there are: asit, asit_2023, asit_2024, "),
        (("--out", "x", "ssast"), "needs a recipe as its first word"),
        (("nope",), "unknown recipe or objective 'nope'; available: "),
        (("nowhere:X",), "cannot be imported"),
        (
            ("finetune",),
            "finetune learns from labels, so it cannot pretrain; melpatch finetune --recipe finetune trains",
        ),
        (("classify",), "classify learns from labels"),
        (("ssast",), "--out"),
        (("ssast", "--out", "x"), "--data is missing; give a folder of audio"),
        (("ssast", "--out", "x", "--data", "nowhere"), "nowhere: no such folder or CSV file"),
        (("ssast", "--out", "x", "--size", "huge"), "--size huge; allowed: nano"),
        (("ssast", "--out", "x", "--stats-clips", "-1"), "--stats-clips -1; allowed: 0 or more"),
        (("ssast", "--out", "x", "--steps", "-1"), "--steps -1; allowed: 0 or more"),
        (
            ("ssast", "--out", "x", "--objective.mask-ratio", "1"),
            "--objective.mask-ratio 1.0; allowed: between 0 and 1",
        ),
        (("ssast", "--out", "x", "--objective.mask", "nope"), "--objective.mask"),
        (("ssast", "--out", "x", "--nope"), "--nope"),
    ],
)
def test_what_cannot_be_run_is_exit_code_2_with_advice(
    words, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


def test_a_split_that_is_not_there_is_refused(corpus, tmp_path, capsys):
    assert (
        main(
            [
                "pretrain",
                "ssast",
                "--data",
                str(corpus),
                "--out",
                str(tmp_path / "x"),
                "--exclude-splits",
                "nope",
            ]
        )
        == 2
    )
    assert (
        "no split 'nope'; there are: test (6 clips), train (9 clips), val (3 clips)"
        in capsys.readouterr().err
    )


def test_an_init_with_other_ears_or_another_encoder_is_refused(corpus, tmp_path, capsys):
    words = [
        "pretrain",
        "ssast",
        "--data",
        str(corpus),
        "--out",
        str(tmp_path / "x"),
        *SHORT,
        *SMALL,
        "--init",
    ]
    ears = settings(depth=1)
    ears = replace(ears, front_end=replace(ears.front_end, hop_ms=20.0))
    words[-1:] = ["--front-end.hop-ms", "10", "--init"]
    for name, config, message in (
        ("ears", ears, "front_end.hop_ms = 10.0 but"),
        (
            "encoder",
            settings(depth=1, embed_dim=32),
            "which are of another size; give --encoder.embed-dim 32, or the --size of that run",
        ),
    ):
        assert main([*words, str(write_run(tmp_path / name, config))]) == 2
        assert message in capsys.readouterr().err
    assert main([*words, str(corpus)]) == 2
    assert f"{corpus}: holds no weights; give a run folder or" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "nowhere")]) == 2
    assert (
        "nowhere; allowed: a run folder, a folder of Hugging Face, a weight file"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("words", [("--help",), ("ssast", "--help")])
def test_help_tells_the_recipes_and_of_every_flag_unit_and_default(words, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")  # wider, and tyro sets the options side by side
    assert main(["pretrain", *words]) == 0
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for part in (
        "usage: melpatch pretrain RECIPE --out PATH --data TEXT... [options]",
        "Recipes: asit, asit_2023, asit_2024, ",
        "Longest segment, in seconds;",
        "--front-end.window-ms FLOAT Length of a frame, in milliseconds. (default: 25.0)",
        "--objective.mask-ratio FLOAT Share of a clip's patches that is masked",
        "--out PATH Run folder to write. (required)",
    ):
        assert part in told
    assert ("below are those of ssast" in told) == (words == ("--help",))


def test_the_settings_that_are_written_are_toml(corpus, tmp_path):
    pretrain(corpus, tmp_path / "run", "--stats-clips", "0")
    written = tomllib.loads((tmp_path / "run" / "config.toml").read_text(encoding="utf-8"))
    assert written["encoder"]["name"] == "vit"
    assert written["objective"]["name"] == "ssast"
    assert set(LABELS).isdisjoint(written["labels"])
