"""``melpatch push`` against a stand-in for the Hub: what arrives, what is read back, and errors of one line."""

import logging
import sys
from dataclasses import replace

import hub_server
import pytest
import torch
from journeys.three_sounds import LABELS, settings
from targets.runs import ast, sound, write_run

from melpatch import cli
from melpatch.inference.calibration import Calibration
from melpatch.inference.model import load
from melpatch.interop.base import start_from_weights
from melpatch.training.config import build

TOKEN = "hf_" + "secret" * 5


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pushed")
    write_run(folder / "ast", ast())
    config = replace(settings(LABELS), data=(str(folder / "private" / "labels.csv"),))
    write_run(folder / "own", config)
    Calibration(multi_label=False, temperature=2.5, clips=9).save(folder / "own")
    return folder


@pytest.fixture
def hub(monkeypatch, tmp_path):
    constants = pytest.importorskip(
        "huggingface_hub.constants", reason="huggingface_hub is not installed"
    )
    with hub_server.running(TOKEN) as server:
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def push(run, *words):
    return cli.main(["push", str(run), "birds/ast", *words])


def test_what_arrives_is_the_export_with_its_card(hub, runs, capsys, caplog):
    caplog.set_level(logging.DEBUG)
    assert push(runs / "ast", "--licence", "cc-by-4.0") == 0
    files = hub.branches["birds/ast", "main"]
    out = runs / "expected"
    words = ["--to", "hf", "--licence", "cc-by-4.0", "--out", str(out), "--overwrite"]
    assert cli.main(["export", str(runs / "ast"), *words]) == 0
    assert files.keys() == {path.name for path in out.iterdir()}
    for name in files.keys() - {"README.md"}:
        assert files[name] == (out / name).read_bytes()
    card = files["README.md"].decode()
    assert "license: cc-by-4.0" in card
    assert 'model="birds/ast"' in card
    assert "owner/name" not in card
    assert hub.messages[0].startswith("Push with melpatch ")
    assert hub.private == set()
    printed = capsys.readouterr()
    assert f"pushed: {hub.address}/birds/ast/commit/" in printed.err
    assert "secret" not in printed.err + printed.out + caplog.text


def test_a_pushed_encoder_is_read_back_to_the_bit(hub, runs):
    assert push(runs / "ast") == 0
    again = build(ast())
    start_from_weights(again, "hf:birds/ast")
    expected = load(runs / "ast").objective.encoder.state_dict()
    state = again.encoder.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in expected.items())


def test_a_pushed_run_is_the_run_without_paths(hub, runs, tmp_path):
    assert push(runs / "own", "--to", "run", "--private", "--licence", "mit") == 0
    files = hub.branches["birds/ast", "main"]
    assert hub.private == {"birds/ast"}
    assert {*files} == {"config.toml", "model.safetensors", "calibration.safetensors", "README.md"}
    assert not any(str(runs).encode() in content for content in files.values())
    assert b"library_name: melpatch" in files["README.md"]
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    wave = sound(0.7)
    assert load(tmp_path).predict(wave, 16000) == load(runs / "own").predict(wave, 16000)


def test_a_branch_is_made_and_a_second_push_replaces(hub, runs, capsys):
    assert push(runs / "ast", "--revision", "epoch-10") == 0
    assert hub.branches["birds/ast", "main"] == {}
    assert "model.safetensors" in hub.branches["birds/ast", "epoch-10"]
    assert push(runs / "ast", "--revision", "epoch-10", "--licence", "mit") == 0
    assert b"license: mit" in hub.branches["birds/ast", "epoch-10"]["README.md"]


def test_a_card_without_a_licence_is_told(hub, runs, capsys):
    assert push(runs / "ast") == 0
    assert "give --licence" in capsys.readouterr().err
    assert b"license: unknown" in hub.branches["birds/ast", "main"]["README.md"]


def last_line(capsys):
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("melpatch push: error: ")
    assert TOKEN not in error
    return error


def test_a_wrong_token_is_told_to_log_in(hub, runs, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert push(runs / "ast") == 2
    assert "birds/ast: 401, the Hub does not know you; log in with hf auth login" in last_line(
        capsys
    )


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (403, "birds/ast: 403, your token may not write there"),
        (404, "birds/ast: 404, there is no such repository or branch"),
        (413, "birds/ast: the Hub answers 413"),
    ],
)
def test_a_refusal_is_one_line_with_the_remedy(status, message, hub, runs, capsys):
    hub.refusal = status
    assert push(runs / "ast") == 2
    assert message in last_line(capsys)


def test_a_hub_out_of_reach_is_named(hub, runs, capsys, monkeypatch):
    constants = sys.modules["huggingface_hub.constants"]
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    assert push(runs / "ast") == 2
    assert "cannot be pushed (ConnectError" in last_line(capsys)


def test_offline_mode_is_named(hub, runs, capsys, monkeypatch):
    monkeypatch.setattr(sys.modules["huggingface_hub.constants"], "HF_HUB_OFFLINE", True)
    assert push(runs / "ast") == 2
    assert "HF_HUB_OFFLINE is set" in last_line(capsys)


def test_what_does_not_fit_is_refused_before_anything_is_sent(runs, capsys):
    assert push(runs / "own") == 2
    assert "front_end.padding" in last_line(capsys)


@pytest.mark.parametrize("name", ["birds", "birds/", "a/b/c", "birds/a b", "../run"])
def test_a_repository_has_an_owner_and_a_name(name, runs, capsys):
    assert cli.main(["push", str(runs / "ast"), name]) == 2
    assert "owner/name" in capsys.readouterr().err


def test_a_licence_is_a_name_of_the_hub(runs, capsys):
    assert push(runs / "ast", "--licence", "Do what\nyou like") == 2
    assert "apache-2.0" in last_line(capsys)


def test_without_the_library_its_extra_is_named(runs, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert push(runs / "ast", "--licence", "mit") == 2
    assert "pip install 'melpatch[hub]'" in last_line(capsys)
