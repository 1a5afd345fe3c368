"""``melpatch pretrain auto``: what the rules choose for a corpus and a budget."""

import pytest
from journeys.three_sounds import melpatch, write_corpus, write_sound

import melpatch as library
from melpatch.config import from_toml
from melpatch.data.manifest import load_corpus
from melpatch.errors import DataError
from melpatch.training.config import RunConfig
from melpatch.workflows.auto import CorpusFacts, choose_from, corpus_facts
from melpatch.workflows.pretrain import PretrainConfig, pretrain_defaults

WORDS = CorpusFacts(clips=9000, hours=2.5, median_seconds=1.0, sample_rate=8000)
DIGITS = CorpusFacts(clips=2400, hours=0.29, median_seconds=0.42, sample_rate=8000)
BIRDS = CorpusFacts(clips=4000, hours=40.0, median_seconds=36.0, sample_rate=44100)


def summary(config):
    training = config.training
    return config.recipe, config.size, training.loader.seconds, training.loader.batch_size


@pytest.mark.parametrize(
    ("facts", "budget", "on_gpu", "chosen"),
    [
        (WORDS, 120.0, False, ("masked_views", "nano", 1.0, 32)),
        (WORDS, 1800.0, False, ("masked_views", "tiny", 1.0, 32)),
        (DIGITS, 120.0, False, ("masked_views", "nano", 0.42, 32)),
        (BIRDS, 120.0, False, ("masked_views", "nano", 2.0, 32)),
        (BIRDS, None, False, ("masked_views", "tiny", 2.0, 32)),
        (BIRDS, 7200.0, True, ("masked_views", "tiny", 10.0, 9)),
    ],
)
def test_the_rules_choose_recipe_size_segment_and_batch(facts, budget, on_gpu, chosen):
    config, reasons = choose_from(facts, budget, on_gpu=on_gpu)
    assert summary(config) == chosen
    assert len(reasons) >= 5
    assert config.training.front_end.sample_rate == min(16000, facts.sample_rate)
    assert config.training.loader.short_clips == "repeat"


def test_a_small_corpus_is_trained_on_for_enough_steps():
    small = CorpusFacts(clips=40, hours=0.1, median_seconds=5.0, sample_rate=16000)
    config, reasons = choose_from(small, None, on_gpu=False)
    assert config.training.train.steps == 2400
    assert "--steps 2400" in reasons[-1]
    assert config.training.loader.batch_size == 10
    config, _ = choose_from(small, 60.0, on_gpu=False)
    assert config.training.train.steps is None  # the budget sets it later


def test_facts_are_those_of_the_corpus(tmp_path):
    for number, seconds in enumerate((1.0, 2.0, 4.0)):
        write_sound(tmp_path / f"{number}.wav", "noise", seconds, 8000, number)
    facts = corpus_facts(load_corpus([tmp_path]))
    assert facts == CorpusFacts(3, 7 / 3600, 2.0, 8000)
    corpus = load_corpus([tmp_path])
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(DataError, match="none of 3 clips can be read"):
        corpus_facts(corpus)


def test_the_chosen_config_is_a_normal_run_and_flags_override_it(tmp_path, capsys):
    corpus = write_corpus(tmp_path / "sounds")
    flags = ("--data", corpus, "--out", tmp_path / "run", "--size", "nano", "--workers", "0")
    melpatch("pretrain", "auto", *flags, "--steps", "2", "--batch-size", "3")
    notices = capsys.readouterr().err
    assert "auto: 9 clips" in notices
    assert "auto: recipe " in notices
    command = from_toml(PretrainConfig, tmp_path / "run" / "command.toml")
    config = from_toml(RunConfig, tmp_path / "run" / "config.toml")
    assert command.recipe == "masked_views"
    nano = pretrain_defaults(command.recipe, size="nano").training.encoder
    assert config.encoder.embed_dim == nano.embed_dim
    assert (config.train.steps, config.loader.batch_size) == (2, 3)
    melpatch("pretrain", "auto", *flags, "--steps", "2", "--batch-size", "3", "--resume")
    short = {"steps": 1, "workers": 0, "batch_size": 2, "size": "nano"}
    run = library.pretrain(data=corpus, objective="auto", out=tmp_path / "own", **short)
    assert run.config.objective == config.objective
    assert run.config.loader.batch_size == 2
