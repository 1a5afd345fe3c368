"""``melpatch.pretrain`` and ``melpatch.finetune`` with keyword arguments and custom objectives."""

import runpy
from pathlib import Path

import pytest
from journeys.three_sounds import LABELS, melpatch, write_corpus

import melpatch as library
from melpatch.config import from_toml
from melpatch.errors import CheckpointError, ConfigError
from melpatch.objectives.mae_ast import MAEAST
from melpatch.objectives.ssast import SSAST
from melpatch.training.run import Run
from melpatch.workflows.keywords import with_settings
from melpatch.workflows.pretrain import PretrainConfig, pretrain_defaults

SMALL = {
    "steps": 2,
    "seconds": 1.0,
    "batch_size": 4,
    "workers": 0,
    "encoder": {"embed_dim": 16, "depth": 1, "num_heads": 2},
    "front_end": {"n_mels": 32},
    "log_every": 1,
}
CUSTOM_OBJECTIVE = '''
from dataclasses import dataclass

from torch import nn

from melpatch import Objective
from melpatch.objectives.base import ObjectiveOutput


class Mean(Objective):
    """Predict the mean of each patch."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        weight: float = 1.0

    def __init__(self, config, front_end, encoder, labels=(), seed=0):
        super().__init__(config, front_end, encoder, labels, seed)
        self.head = nn.Linear(encoder.embed_dim, 1)

    def forward(self, batch, step):
        spectrogram, valid = self.features(batch)
        means = self.encoder.grid.split(spectrogram).mean(dim=2, keepdim=True)
        error = (self.head(self.encoder(spectrogram, valid).patches) - means).square().mean()
        return ObjectiveOutput(self.config.weight * error, error.new_ones(()))
'''


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("sounds"))


def test_a_script_pretrains_fine_tunes_and_predicts(corpus, tmp_path):
    run = library.pretrain(data=corpus, objective="ssast", out=tmp_path / "a", **SMALL)
    assert isinstance(run, Run)
    assert run.config.train.steps == 2
    assert Run.trained_on(run.folder)
    short = {"steps": 1, "batch_size": 4, "workers": 0}
    tuned = library.finetune(data=corpus, init=run, out=tmp_path / "b", **short)
    assert tuned.config.labels == LABELS
    assert tuned.config.encoder == run.config.encoder
    assert library.load(tuned).labels == LABELS
    assert 0 <= library.evaluate(tuned, data=corpus)["as_trained"]["value"] <= 1
    assert library.predict(tuned, corpus.parent / "low" / "0.wav")


def test_a_script_and_a_command_give_the_same_run(corpus, tmp_path):
    """Config, metrics and recorded settings are equal, and each can resume the other's run."""
    run = library.pretrain(data=[corpus], out=tmp_path / "a", size="nano", **SMALL)
    flags = "--steps 2 --seconds 1 --batch-size 4 --workers 0 --log-every 1"
    flags += " --front-end.n-mels 32 --size nano"
    flags += " --encoder.embed-dim 16 --encoder.depth 1 --encoder.num-heads 2"
    melpatch("pretrain", "ssast", "--data", corpus, "--out", tmp_path / "b", *flags.split())
    for name in ("config.toml", "metrics.jsonl"):
        assert (run.folder / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    script, command = (
        from_toml(PretrainConfig, tmp_path / name / "command.toml").training for name in "ab"
    )
    assert script == command
    melpatch("pretrain", "ssast", "--out", tmp_path / "a", "--resume")
    resumed = library.pretrain(data=corpus, out=tmp_path / "b", resume=True)
    assert resumed.config == run.config
    with pytest.raises(CheckpointError, match="holds a run already"):
        library.pretrain(data=corpus, out=tmp_path / "b")
    with pytest.raises(ConfigError, match=r"--lr = 0\.5, but"):
        library.pretrain(data=corpus, out=tmp_path / "b", resume=True, lr=0.5)


@pytest.mark.parametrize(
    "objective",
    [
        "maskspec",
        SSAST,
        SSAST.Config(mask_ratio=0.6),
        {"name": "ssast", "mask_ratio": 0.6},
    ],
)
def test_an_objective_is_given_by_name_class_config_or_mapping(
    objective, corpus, tmp_path, monkeypatch
):
    configs = []

    def record(config):
        configs.append(config)
        return Run(config.out, config.training)

    monkeypatch.setattr("melpatch.workflows.pretrain.pretrain", record)
    library.pretrain(data=corpus, out=tmp_path, objective=objective)
    (config,) = configs
    if objective == "maskspec":
        assert config.recipe == "maskspec"
    else:
        assert config.recipe == "ssast"
        mask_ratio = 0.75 if objective is SSAST else 0.6
        assert config.training.objective.mask_ratio == mask_ratio
        assert config.training.loader.batch_size == 48  # the recipe's


def test_settings_have_the_names_of_their_flags():
    config = with_settings(
        pretrain_defaults("mae_ast", size="nano"),
        {"lr": 1, "keep_every": None, "data": "sounds", "exclude_splits": ["1"]},
        objective={"decoder": {"depth": 1}},
    )
    assert config.training.train.lr == 1.0
    assert config.training.data == ("sounds",)
    assert config.exclude_splits == ("1",)
    assert isinstance(config.training.objective, MAEAST.Config)
    assert config.training.objective.decoder.depth == 1
    assert config.training.objective.decoder.num_heads == 3  # the recipe's


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batchsize": 4}, "no setting is called 'batchsize'; did you mean batch_size"),
        ({"steps": "many"}, "'many' is not of type"),
        ({"lr": -1.0}, "lr = -1.0; allowed: above 0"),
        ({"front_end": {"mels": 4}}, "unknown key 'mels'; known: "),
        ({"objective": {"mask_ratios": 0.5}}, "unknown key 'mask_ratios'; known: "),
        ({"objective": 3}, "objective = 3; allowed: a name, a class, its Config, or a mapping"),
    ],
)
def test_wrong_settings_give_an_error_of_one_line(settings, message, tmp_path):
    with pytest.raises(ConfigError, match=message) as error:
        library.pretrain(**{"data": "x", "out": tmp_path / "x"} | settings)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "x").exists()


def test_a_custom_objective_is_imported_from_a_file(corpus, tmp_path, monkeypatch):
    """A notebook writes the file with %%writefile, imports the class, and trains."""
    (tmp_path / "own_mean.py").write_text(CUSTOM_OBJECTIVE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    cell = """
import melpatch
from own_mean import Mean

run = melpatch.pretrain(data=data, out=out, objective=Mean.Config(weight=2.0), **small)
"""
    namespace = {"__name__": "__main__", "data": corpus, "out": tmp_path / "run", "small": SMALL}
    exec(compile(cell, "<cell>", "exec"), namespace)
    run = namespace["run"]
    assert run.config.objective.weight == 2.0
    assert library.load(run).embed(corpus.parent / "low" / "0.wav").ndim == 1


def test_an_objective_defined_in_a_notebook_is_refused(corpus, tmp_path):
    namespace = {"__name__": "__main__"}
    exec(compile(CUSTOM_OBJECTIVE, "<cell>", "exec"), namespace)
    for objective in (namespace["Mean"], namespace["Mean"].Config()):
        with pytest.raises(ConfigError, match=r"save the class to a file such as my_objective\.py"):
            library.pretrain(data=corpus, out=tmp_path / "run", objective=objective)
    assert not (tmp_path / "run").exists()


def test_an_objective_defined_in_a_script_is_refused(corpus, tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    call = f"import melpatch\nmelpatch.pretrain(data={str(corpus)!r}, out='run', objective=Mean)\n"
    script.write_text(CUSTOM_OBJECTIVE + call, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"save the class to a file such as my_objective\.py"):
        runpy.run_path(str(script), run_name="__main__")
    assert not (tmp_path / "run").exists()
