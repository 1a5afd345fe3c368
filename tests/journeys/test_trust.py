"""A run or a comparison that somebody else made runs none of its code, unless the user says so."""

import shutil
import sys
import tomllib

import pytest
import tomli_w
from tiny_runs import noises, settings, write_noise

import melpatch
from melpatch import registry
from melpatch.cli import main
from melpatch.errors import ConfigError
from melpatch.objectives.classify import Classify
from melpatch.training.config import build
from melpatch.training.run import COMMAND, Run
from melpatch.workflows.finetune import finetune_defaults

EVIL = """
from dataclasses import dataclass
from pathlib import Path
from melpatch.encoders.vit import ViT

Path(__file__).with_name("ran").touch()


class Evil(ViT):
    @dataclass(frozen=True, kw_only=True)
    class Config(ViT.Config):
        pass
"""
PIECES = ("encoder", "objective")


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Nothing was named by the user so far."""
    monkeypatch.setattr(registry, "_GIVEN", set())


@pytest.fixture
def downloaded(tmp_path, monkeypatch):
    """A folder on the import path, with a module that leaves a trace if it is imported."""
    folder = tmp_path / "downloaded"
    folder.mkdir()
    (folder / "evil.py").write_text(EVIL)
    noises(tmp_path / "noise", (0.4, 0.4, 0.4, 0.4), labels=("a", "b"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "downloaded"]:
        del sys.modules[name]


def labelled():
    config = settings("noise", steps=2)
    return melpatch.training.config.RunConfig(
        **{**vars(config), "objective": Classify.Config(), "labels": ("a", "b")}
    )


def run_naming(folder, name, piece="encoder"):
    """Make a run whose config.toml and command.toml name a piece."""
    config = labelled()
    command = finetune_defaults()
    run = Run.create(folder, config, command)
    with run.checkpoints:
        run.publish(build(config).state_dict())
    run.log({"step": 0})
    for file, table in ((folder / "config.toml", ()), (folder / COMMAND, ("training",))):
        data = tomllib.loads(file.read_text())
        within = data
        for key in table:
            within = within[key]
        within[piece]["name"] = name
        data["trust_code"] = True if table else data.pop("trust_code", None)
        file.write_text(
            tomli_w.dumps({key: value for key, value in data.items() if value is not None})
        )
    return folder


COMMANDS = {
    "show": "show RUN",
    "embed": "embed RUN noise --out o.npz",
    "predict": "predict RUN noise --out o.csv",
    "evaluate": "evaluate RUN --data noise",
    "finetune --init": "finetune --init RUN --data noise --out o",
    "finetune --encoder-from": "finetune --init scratch --encoder-from RUN --data noise --out o",
    "pretrain --init": "pretrain ssast --init RUN --data noise --out o --steps 1 --size nano",
    "finetune --resume": "finetune --init scratch --data noise --out RUN --resume",
    "pretrain --resume": "pretrain ssast --data noise --out RUN --resume",
    "pretrain auto": "pretrain auto --data noise --out RUN --budget 1m",
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("piece", PIECES)
def test_no_command_runs_the_code_that_a_run_names(downloaded, words, piece, capsys):
    run_naming(downloaded / "run", "downloaded.evil:Evil", piece)
    shutil.rmtree("o", ignore_errors=True)
    assert main([word.replace("RUN", "downloaded/run") for word in words.split()]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "names 'downloaded.evil:Evil'" in line or "unknown key" in line
    assert not (downloaded / "ran").exists()


OPENERS = {
    "load": lambda run: melpatch.load(run),
    "embed": lambda run: melpatch.embed(run, "noise"),
    "predict": lambda run: melpatch.predict(run, "noise"),
    "evaluate": lambda run: melpatch.evaluate(run, "noise"),
    "finetune": lambda run: melpatch.finetune(data="noise", init=run, out="o"),
    "pretrain": lambda run: melpatch.pretrain(
        data="noise", init=run, out="o", size="nano", steps=1
    ),
    "resume": lambda run: melpatch.finetune(data="noise", init="scratch", out=run, resume=True),
}


@pytest.mark.parametrize("open_run", OPENERS.values(), ids=OPENERS)
def test_no_function_runs_the_code_that_a_run_names(downloaded, open_run):
    run = run_naming(downloaded / "run", "downloaded.evil:Evil")
    with pytest.raises(ConfigError, match=r"names 'downloaded.evil:Evil'.*trust_code=True"):
        open_run(run)
    assert not (downloaded / "ran").exists()


def test_the_user_may_trust_a_run(downloaded):
    run = run_naming(downloaded / "run", "downloaded.evil:Evil")
    wave = write_noise(downloaded / "a.wav", 0.4)
    assert main(["embed", str(run), str(wave), "--out", "o.npz", "--trust-code"]) == 0
    assert (downloaded / "ran").exists()
    registry._GIVEN.clear()
    assert melpatch.load(run, trust_code=True).embed(wave).shape == (64,)
    # What the process has run already, other files may name too.
    assert melpatch.load(run).embed(wave).shape == (64,)


def test_a_run_may_name_code_that_the_user_named(downloaded):
    registry.find("encoders", "downloaded.evil:Evil")
    melpatch.load(run_naming(downloaded / "run", "downloaded.evil:Evil"))


@pytest.mark.parametrize(
    "name",
    [":", "::", "..x:y", "os:", ":system", "a b:c", "os:system\n", "os:sys\0tem", "é:é", 5, [], {}],
)
def test_a_name_that_is_none_gets_one_clear_line(downloaded, name, capsys):
    run = run_naming(downloaded / "run", name)
    assert main(["show", str(run)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "config.toml.encoder" in line


@pytest.mark.parametrize("name", ["os:system", "subprocess:run", "pathlib:Path", "json:nothing"])
def test_what_is_no_encoder_is_refused_even_if_it_is_trusted(downloaded, name, capsys):
    run = run_naming(downloaded / "run", name)
    assert main(["show", str(run), "--trust-code"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert name in line


SPEC = """
title = "t"
[[methods]]
name = "m"
recipe = "RECIPE"
flags = "FLAGS"
[[budgets]]
name = "b"
steps = [1]
recipe = "ssast"
protocols = ["PROTOCOL"]
"""


@pytest.mark.parametrize(
    ("recipe", "flags", "protocol"),
    [
        ("downloaded.evil:Evil", "", "knn"),
        ("ssast", "--encoder downloaded.evil:Evil", "knn"),
        ("ssast", "--encoder=downloaded.evil:Evil", "knn"),
        ("ssast", "", "downloaded.evil:Evil k=3"),
    ],
)
def test_a_comparison_names_no_code_unless_it_is_trusted(
    downloaded, recipe, flags, protocol, capsys
):
    text = SPEC.replace("RECIPE", recipe).replace("FLAGS", flags).replace("PROTOCOL", protocol)
    (downloaded / "spec.toml").write_text(text)
    words = ["compare", "downloaded/spec.toml", "--data", "noise", "--task", "t=noise", "--dry-run"]
    assert main(words) == 2
    assert "names 'downloaded.evil:Evil'" in capsys.readouterr().err
    assert not (downloaded / "ran").exists()
    main([*words, "--trust-code"])
    assert (downloaded / "ran").exists()


def test_a_resumed_run_keeps_the_code_of_its_command(downloaded, monkeypatch):
    (downloaded / "mine.py").write_text(
        "from melpatch.objectives.ssast import SSAST\n"
        "from melpatch.recipes.ssast import ssast\n"
        "from dataclasses import dataclass, replace\n\n\n"
        "class Mine(SSAST):\n"
        "    @dataclass(frozen=True, kw_only=True)\n"
        "    class Config(SSAST.Config):\n"
        "        pass\n\n\n"
        "def recipe(size):\n"
        "    return replace(ssast(size), objective=Mine.Config())\n"
    )
    about = "--data noise --size nano --steps 1 --workers 0 --seconds 0.4 --batch-size 2"
    for name, out in (("downloaded.mine:Mine", "one"), ("downloaded.mine:recipe", "two")):
        words = ["pretrain", name, *about.split(), "--out", out]
        assert main(words) == 0
        registry._GIVEN.clear()
        assert main([*words, "--resume"]) == 0
        assert main(["show", out]) == 0
        registry._GIVEN.clear()
        assert main(["show", out]) == 2
