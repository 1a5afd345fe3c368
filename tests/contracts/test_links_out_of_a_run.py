"""Nothing is written or removed through links in a run folder of others that lead out of it."""

import shutil

import pytest
from contracts.commands_that_write import commands, write_inputs

from melpatch.cli import main


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def precious(tmp_path):
    """A folder of the user's, with names that a run has too."""
    folder = tmp_path / "precious"
    (folder / "step-000000001").mkdir(parents=True)
    (folder / ".notes.1.partial").write_text("mine")
    (folder / "step-000000001" / "mine").write_text("mine")
    return folder


def content(folder):
    return {path: path.is_file() and path.read_text() for path in folder.rglob("*")}


@pytest.mark.parametrize("link", ["features", "evaluation", "evaluation/sounds-corpus/knn"])
def test_scores_and_features_stay_in_the_run(link, inputs, precious, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(inputs / "pretrained", run)
    (run / link).parent.mkdir(parents=True, exist_ok=True)
    (run / link).symlink_to(precious)
    before = content(precious)
    words = commands(inputs)["evaluate"].words
    words = [str(run) if word == str(inputs / "pretrained") else word for word in words]
    assert main([*words, "--no-floors"]) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert f"leads to {precious}" in last
    assert "by a link, through which nothing is written; remove the link" in last
    assert content(precious) == before


def test_a_run_that_is_resumed_stays_in_its_folder(inputs, precious, tmp_path, capsys):
    words = commands(inputs)["pretrain"].at(tmp_path)
    assert main(words) == 0
    resume = tmp_path / "run" / "resume"
    shutil.rmtree(resume)
    resume.symlink_to(precious)
    before = content(precious)
    assert main([*words, "--resume"]) == 2
    assert "resume: leads to" in capsys.readouterr().err.splitlines()[-1]
    assert content(precious) == before
