"""No command writes over what it reads, or into a folder that it reads or that is of something else."""

import shutil

import pytest
from contracts.commands_that_write import commands, write_inputs

from melpatch.cli import main

# Command, its output below the inputs, and what the refusal says of it.
CASES = {
    "prepare a folder": ("prepare", "sounds", "is an input"),
    "prepare a recording": ("prepare", "sounds/low/0.wav", "was not made by this command"),
    "embed the list": ("embed", "sounds/corpus.csv", "was not made by this command"),
    "index a run": ("index", "pretrained", "is an input"),
    "index the recordings": ("index", "sounds", "is an input"),
    "index another run": ("index", "classifier", "which is not of this command"),
    "predict the list": ("predict", "sounds/corpus.csv", "was not made by this command"),
    "evaluate the list": ("evaluate", "sounds/corpus.csv", "is an input"),
    "pack the folder": ("pack", "sounds", "a folder other than"),
    "pack a folder below": ("pack", "sounds/low", "holds 0.wav"),
    "pack a run": ("pack", "pretrained", "holds config.toml"),
    "pretrain the list": ("pretrain", "sounds/corpus.csv", "is a file"),
    "pretrain a run": ("pretrain", "pretrained", "holds a run already"),
    "finetune a run": ("finetune", "classifier", "holds a run already"),
    "compare the spec": ("compare", "one.toml", "is an input"),
    "compare a run": ("compare", "pretrained", "holds config.toml"),
    "compare the sounds": ("compare", "sounds", "holds corpus.csv"),
    "show the metrics": ("show", "pretrained/metrics.jsonl", "is an input"),
    "show the weights": ("show", "pretrained/model.safetensors", "is an input"),
    "show the list": ("show", "sounds/corpus.csv", "was not made by this command"),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", CASES)
def test_an_input_or_a_folder_of_something_else_is_refused_as_the_output(case, inputs, capsys):
    name, out, message = CASES[case]
    before = content(inputs)
    writing = commands(inputs)[name]
    assert main([*writing.words, writing.flag, str(inputs / out)]) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert message in last
    assert content(inputs) == before


@pytest.mark.parametrize("name", ["pretrain", "finetune", "evaluate"])
def test_a_folder_of_sound_is_no_place_for_a_run_or_scores_of_it(name, inputs, tmp_path, capsys):
    sounds = tmp_path / "sounds"
    shutil.copytree(inputs / "sounds", sounds)
    csv = str(inputs / "sounds" / "corpus.csv")
    before = content(sounds)
    words = [str(sounds) if word == csv else word for word in commands(inputs)[name].words]
    assert main([*words, "--out", str(sounds)]) == 2
    assert f"--out {sounds}: is an input; give another folder" in capsys.readouterr().err
    assert content(sounds) == before


def test_pictures_of_melpatch_are_drawn_again_and_others_with_the_flag(inputs, tmp_path, capsys):
    picture = tmp_path / "a.png"
    words = ["show", str(inputs / "pretrained"), "--curve", str(picture)]
    for _ in range(2):
        assert main(words) == 0
    picture.write_bytes(b"\x89PNG, of the user")
    assert main(words) == 2
    assert "--curve" in capsys.readouterr().err
    assert picture.read_bytes() == b"\x89PNG, of the user"
    assert main([*words, "--overwrite"]) == 0
