"""A classifier of other code as a run, and in place of one, in every command that takes a run."""

import json
import shutil
import sys
from types import ModuleType

import numpy as np
import pytest
import soundfile
from journeys.three_sounds import melpatch, write_corpus
from safetensors.torch import load_file
from targets.runs import LABELS, ast, sound, ssast, write_run

from melpatch import cli, load
from melpatch.training.foreign import read_source


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run, its export for transformers, what was imported from that, and some sound."""
    folder = tmp_path_factory.mktemp("import")
    write_run(folder / "run", ast(objective={"head_norm_eps": 1e-6}))
    melpatch("export", folder / "run", "--to", "hf", "--out", folder / "hf")
    melpatch("import", folder / "hf", "--out", folder / "imported")
    (folder / "sounds").mkdir()
    for number in range(4):
        name = folder / "sounds" / f"{number}.wav"
        soundfile.write(name, sound(0.5 + number / 2, seed=number), 16000)
    lines = [f"{number}.wav,{LABELS[number % 3]!r}".replace("'", '"') for number in range(4)]
    (folder / "sounds" / "labels.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    return folder


def test_an_imported_run_is_the_run_that_was_exported(folder):
    ours = load_file(folder / "run" / "model.safetensors")
    imported = load_file(folder / "imported" / "model.safetensors")
    assert ours.keys() == imported.keys()
    assert all(np.array_equal(ours[name], imported[name]) for name in ours)
    wave = sound(3.0)
    for name in ("imported", "hf"):
        model = load(folder / name)
        assert model.labels == LABELS
        assert model.predict(wave, 16000) == load(folder / "run").predict(wave, 16000)
    source = read_source(folder / "imported")
    assert source.source == str(folder / "hf")
    assert "as its card on the Hub says" in source.licence


def test_an_imported_run_is_exported_to_the_same_files(folder, tmp_path):
    melpatch("export", folder / "imported", "--to", "hf", "--out", tmp_path / "again")
    for name in ("model.safetensors", "config.json", "preprocessor_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / "hf" / name).read_bytes()
    card = (tmp_path / "again" / "README.md").read_text()
    assert f"| imported from | {folder / 'hf'}: a ViT of Hugging Face" in card


@pytest.mark.parametrize("command", ["predict", "embed"])
def test_a_foreign_model_gives_the_rows_of_its_run(command, folder, tmp_path):
    for name in ("hf", "imported"):
        out = tmp_path / f"{name}.csv"
        melpatch(command, folder / name, folder / "sounds", "--out", out)
    assert (tmp_path / "hf.csv").read_text() == (tmp_path / "imported.csv").read_text()


def test_a_foreign_model_is_scored_like_its_run(folder, tmp_path, capsys):
    csv = folder / "sounds" / "labels.csv"
    for name in ("hf", "imported"):
        out = tmp_path / name
        melpatch("evaluate", folder / name, "--data", csv, "--no-floors", "--out", out)
    scores = [
        json.loads((tmp_path / name / "as_trained" / "scores.json").read_text())
        for name in ("hf", "imported")
    ]
    assert scores[0]["value"] == scores[1]["value"]
    assert scores[1]["initialisation"] == f"trained from {folder / 'hf'}"
    # Nothing is written beside the weights.
    assert {path.name for path in (folder / "hf").iterdir()} == {
        *("README.md", "config.json", "model.safetensors", "preprocessor_config.json")
    }


def test_a_foreign_model_is_shown_and_exported_like_its_run(folder, tmp_path, capsys):
    capsys.readouterr()
    melpatch("show", folder / "hf", "--json")
    shown = json.loads(capsys.readouterr().out)
    assert (shown["weights"], shown["labels"]) == ("complete", ", ".join(LABELS))
    melpatch("show", folder / "imported", "--json")
    assert "licence of each model" in json.loads(capsys.readouterr().out)["imported from"]
    melpatch("export", folder / "hf", "--to", "timm", "--out", tmp_path / "w.safetensors")
    melpatch("import", tmp_path / "w.safetensors", "--out", tmp_path / "back")
    ours = load_file(folder / "run" / "model.safetensors")
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert all(np.array_equal(ours[name], back[name]) for name in ours)


def test_fine_tuning_takes_the_encoder_of_either(folder, tmp_path):
    write_corpus(tmp_path / "sounds")
    flags = ("--data", tmp_path / "sounds" / "corpus.csv", "--no-probe", "--steps", 1)
    flags += ("--workers", 0, "--batch-size", 4, "--lr", 1e-12, "--weight-decay", 0)
    for name in ("hf", "imported"):
        melpatch("finetune", "--init", folder / name, *flags, "--out", tmp_path / name)
    states = [load_file(tmp_path / name / "model.safetensors") for name in ("hf", "imported")]
    ours = load_file(folder / "run" / "model.safetensors")
    for name in ours:
        np.testing.assert_array_equal(states[0][name], states[1][name])
        if name.startswith("encoder.transformer"):
            np.testing.assert_allclose(states[0][name], ours[name], atol=1e-6)


def test_labels_are_read_from_a_list(folder, tmp_path):
    hf = shutil.copytree(folder / "hf", tmp_path / "hf")
    config = json.loads((hf / "config.json").read_text())
    del config["id2label"]
    (hf / "config.json").write_text(json.dumps(config))
    (tmp_path / "classes.csv").write_text("index,mid,display_name\n0,a,wind\n1,b,tide\n2,c,rain\n")
    assert load(hf).labels == ("0", "1", "2")
    assert load(hf, labels=["x", "y", "z"], multi_label=True).labels == ("x", "y", "z")
    given = ("--labels", tmp_path / "classes.csv")
    melpatch("import", hf, *given, "--multi-label", "True", "--out", tmp_path / "run")
    model = load(tmp_path / "run")
    assert model.labels == ("wind", "tide", "rain")
    assert model.objective.config.multi_label
    melpatch("predict", hf, folder / "sounds", *given, "--out", tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text().splitlines()[0].endswith("wind,tide,rain")


@pytest.fixture
def downloads(folder, monkeypatch):
    """The names of the files that are fetched from a Hub with one repository."""
    fetched = []

    def download(repo_id, filename):
        fetched.append(filename)
        return str(folder / "hf" / filename)

    errors, library = ModuleType("huggingface_hub.errors"), ModuleType("huggingface_hub")
    errors.EntryNotFoundError = type("EntryNotFoundError", (Exception,), {})
    library.hf_hub_download = download
    monkeypatch.setitem(sys.modules, "huggingface_hub", library)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    return fetched


@pytest.mark.usefixtures("downloads")
def test_a_repository_of_the_hub_is_taken_like_its_folder(folder, tmp_path):
    wave = sound(1.0)
    assert load("hf:owner/ast").predict(wave, 16000) == load(folder / "run").predict(wave, 16000)
    melpatch("import", "hf:owner/ast", "--out", tmp_path / "run")
    assert read_source(tmp_path / "run").source == "hf:owner/ast"


def test_settings_and_weights_of_a_repository_are_of_one_download(folder, downloads, tmp_path):
    data = ("--data", folder / "sounds" / "labels.csv", "--no-probe")
    flags = ("--steps", 1, "--evaluations", 1, "--workers", 0, "--batch-size", 4, "--seconds", 0.5)
    melpatch("finetune", "--init", "hf:owner/ast", *data, *flags, "--out", tmp_path / "run")
    assert len(downloads) == len(set(downloads)) > 0


@pytest.mark.parametrize("command", [("finetune",), ("pretrain", "maskspec")])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--epoch", "2"), "--epoch"),
        (("--lr", "fast"), "--lr fast; allowed: a number"),
        (("--batch-size", "0"), "batch-size 0"),
    ],
)
def test_a_mistake_in_the_flags_costs_no_download(
    words, message, command, folder, downloads, tmp_path, capsys
):
    given = ("--init", "hf:owner/ast", "--data", folder / "sounds", "--out", tmp_path / "run")
    assert cli.main([*command, *map(str, given), *words]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert downloads == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("import", "hf", "--out", "imported"), "holds a run already, which is not replaced"),
        (("import", "run", "--out", "new"), "run: is a run already, which every command takes"),
        (("import", "sounds", "--out", "new"), "sounds: holds no model.safetensors or pytorch_mod"),
        (("import", "none.pth", "--out", "new"), "none.pth: no such file; give a weight file"),
        (("evaluate", "hf", "--data", "sounds/labels.csv"), "is no run folder, where scores are"),
        (("fit-embedding", "hf", "--data", "sounds"), "is no run folder, where short embeddings"),
        (("calibrate", "hf", "--data", "sounds"), "is no run folder, where temperature and thre"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_changes_nothing(
    words, message, folder, monkeypatch, capsys
):
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    assert cli.main([*words]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert sorted(folder.rglob("*")) == before


def test_an_encoder_is_imported_for_embeddings_probes_and_training(folder, tmp_path, capsys):
    write_run(tmp_path / "run", ssast())
    melpatch("export", tmp_path / "run", "--to", "hf", "--out", tmp_path / "hf")
    melpatch("import", tmp_path / "hf", "--out", tmp_path / "imported")
    told = " ".join(capsys.readouterr().err.split())
    assert "an encoder for embeddings" in told
    assert f"melpatch embed {tmp_path / 'imported'}" in told
    wave = sound(3.0)
    expected = load(tmp_path / "run").embed(wave, 16000)
    for name in ("hf", "imported"):
        np.testing.assert_array_equal(load(tmp_path / name).embed(wave, 16000), expected)
    csv = str(folder / "sounds" / "labels.csv")
    words = ["finetune", "--init", str(tmp_path / "imported"), "--data", csv, "--head", "linear"]
    melpatch(*words, "--out", tmp_path / "kept")
    assert load(tmp_path / "kept").labels == tuple(sorted(LABELS))
    # Nothing predicts, and nothing trains, without an objective.
    wav = str(folder / "sounds" / "0.wav")
    assert cli.main(["predict", str(tmp_path / "hf"), wav, "--out", str(tmp_path / "p.csv")]) == 2
    assert "has no labels to predict; fine-tune it first" in capsys.readouterr().err
    assert cli.main(["pretrain", "encoder_only", "--data", csv, "--out", str(tmp_path / "x")]) == 2
    assert "unknown recipe or objective 'encoder_only'" in capsys.readouterr().err
