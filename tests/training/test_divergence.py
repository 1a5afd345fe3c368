"""Whatever the rate at which a run diverges, it ends with the sentence about its learning rate."""

import pytest
from journeys.three_sounds import SHORT, SMALL, write_corpus

from melpatch import cli


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("sounds"))


@pytest.mark.parametrize("command", [("finetune", "--init", "scratch"), ("pretrain", "ssast")])
@pytest.mark.parametrize("rate", ["1e10", "1e20", "1e36"])
def test_a_run_that_diverges_names_its_learning_rate(command, rate, corpus, tmp_path, capsys):
    words = [*command, "--data", str(corpus), "--steps", "3", *SHORT, *SMALL, "--stats-clips", "0"]
    words += ["--lr", rate, "--lr-warmup", "0", "--out", str(tmp_path / "run")]
    assert cli.main(words) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / 'run'}: diverged: " in last
    assert f"; lower --lr, which is {float(rate):g}, " in last
    assert not [*(tmp_path / "run").glob("resume/step*")]
