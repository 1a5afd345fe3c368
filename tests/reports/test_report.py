"""Reports: what a run or an evaluation holds is in one page, and what it lacks is said."""

import base64
import io
import json
import re
import shutil

import numpy as np
import pytest
import soundfile
from journeys.three_sounds import LABELS, SHORT, SMALL, melpatch, settings, write_corpus, write_run
from test_markup import Reader

import melpatch as melpatch_package
from melpatch.cli import main
from melpatch.errors import ConfigError
from melpatch.reports.repeat import command_of
from melpatch.reports.report import is_own_report, report


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A classifier that was trained for a few steps, and scored with its floors."""
    root = tmp_path_factory.mktemp("scored")
    corpus = write_corpus(root / "sounds <b>")
    run = root / "run"
    melpatch(
        "finetune",
        "--init",
        "scratch",
        "--data",
        corpus,
        "--out",
        run,
        "--steps",
        2,
        *SHORT,
        *SMALL,
    )
    melpatch("evaluate", run, "--data", corpus, "--protocol", "as_trained")
    return run


def sections(page):
    return re.findall(r"<h2>(.*?)</h2>", page)


def sounds(page):
    for encoded in re.findall(r'src="data:audio/flac;base64,(.*?)"', page):
        yield soundfile.read(io.BytesIO(base64.b64decode(encoded)))


def test_a_run_is_told_whole(scored):
    page = report(scored, clips=0)
    shown = Reader(page)
    assert sections(page) == [
        "What was trained, on what",
        "Training",
        "Scores",
        "Scores: as_trained on sounds &lt;b&gt;/corpus",
        "Classes: as_trained on sounds &lt;b&gt;/corpus",
        "Worst clips: as_trained on sounds &lt;b&gt;/corpus",
        "Settings",
        "How to repeat it",
        "For a paper",
    ]
    for part in ("Classify", "high, low, noise", "--lr", "git commit of melpatch"):
        assert part in shown.text
    for floor in ("majority class", "log-mel statistics", "MFCC statistics"):
        assert floor in shown.text
    record = json.loads(next(scored.rglob("scores.json")).read_text())
    assert f"{record['value']:.3f}" in shown.text
    assert "@software{melpatch" in shown.text


def test_commands_are_written_as_they_are_typed():
    words = ["/somewhere/melpatch/__main__.py", "pretrain", "ssast", "--data", "my sounds"]
    assert command_of({"command": words}) == "melpatch pretrain ssast --data 'my sounds'"
    assert command_of({"command": ["bin/melpatch", "show", "a"]}) == "melpatch show a"
    assert command_of({"command": ["work/train.py", "5"]}) == "train.py 5"
    assert command_of({}) == "(a call from Python)"


def test_the_page_is_whole_and_loads_nothing_from_elsewhere(scored):
    page = report(scored, clips=6)
    shown = Reader(page)
    names = {name for name, _ in shown.elements}
    assert not names & {"script", "link", "iframe", "object", "embed", "form", "base"}
    for _, attributes in shown.elements:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("data:", "#"))
    policy = next(a for _, a in shown.elements if a.get("http-equiv"))["content"]
    assert policy.startswith("default-src 'none'")
    for name, attributes in shown.elements:
        if name == "img":
            assert attributes["alt"]


def test_a_picture_names_run_corpus_split_and_protocol(scored):
    shown = Reader(report(scored, clips=6))
    described = [attributes["alt"] for name, attributes in shown.elements if name == "img"]
    confusion = next(text for text in described if text.startswith("Confusion"))
    assert f"{scored} on sounds <b>/corpus (test), as_trained" in confusion


def test_the_worst_clips_can_be_heard(scored):
    lines = next(scored.rglob("predictions.csv")).read_text().splitlines()
    page = report(scored, worst=2, clips=0)
    heard = [*sounds(page)]
    wrong = sum(line.split(",")[3] != line.split(",")[4] for line in lines[1:])
    assert len(heard) == min(2, wrong)
    assert wrong
    for wave, rate in heard:
        assert rate == 16000
        assert 0.5 < len(wave) / rate < 1.5
        assert np.abs(wave).max() > 0.01
    assert "<audio" not in report(scored, worst=0, clips=0)


def test_labels_as_predict_gives_them_are_shown_by_class(tmp_path, scored):
    run = tmp_path / "run"
    shutil.copytree(scored, run)
    path = next(run.rglob("scores.json"))
    record = json.loads(path.read_text())
    alarms = {"clips": 1, "share": 0.125, "interval_95": [0.021, 0.471], "interval_by": "clip"}
    record["decisions"]["none_of_these"] = alarms
    record["decisions"]["per_class"][0]["none_of_these"] = alarms
    path.write_text(json.dumps(record))
    text = Reader(report(run, clips=0, worst=0)).text
    assert "As predict gives labels (thresholds: none): precision" in text
    assert "1 of 6 clips of the known classes is called none of these: 0.125" in text
    assert "called none of these" in text
    assert "0.021 to 0.471" in text
    # Scores from before decisions were recorded, and of runs without any.
    for missing in (lambda: record.update(decisions=None), lambda: record.pop("decisions")):
        missing()
        path.write_text(json.dumps(record))
        assert "As predict gives labels" not in Reader(report(run, clips=0, worst=0)).text


def test_names_of_files_and_labels_never_run(tmp_path, scored):
    run = tmp_path / "run"
    shutil.copytree(scored, run)
    path = next(run.rglob("scores.json"))
    evil = "<script>alert(1)</script>"
    record = json.loads(path.read_text())
    record["per_class"][0]["label"] = record["decisions"]["per_class"][0]["label"] = evil
    record["corpus"] = record["warning"] = evil
    path.write_text(json.dumps(record))
    predictions = path.with_name("predictions.csv")
    predictions.write_text(predictions.read_text().replace("/high/", f"/{evil}/"))
    shown = Reader(report(run, clips=0))
    assert not any(name == "script" for name, _ in shown.elements)
    assert evil in shown.text


def test_what_is_missing_is_said(tmp_path, capsys):
    run = write_run(tmp_path / "run", settings(LABELS))
    text = Reader(report(run, clips=0)).text
    assert "No test scores" in text
    assert "Commands and versions were not recorded" in text
    assert "data that were not recorded" in text
    (run / "metrics.jsonl").unlink()
    assert "No curves" in Reader(report(run, clips=0)).text


def test_recordings_that_are_gone_are_said_to_be(tmp_path, scored):
    run = tmp_path / "run"
    shutil.copytree(scored, run)
    predictions = next(run.rglob("predictions.csv"))
    predictions.write_text(predictions.read_text().replace("sounds <b>", "moved"))
    page = report(run, clips=0)
    assert "no picture and no sound" in page
    assert not [*sounds(page)]
    predictions.unlink()
    assert "The worst clips are not known" in report(run, clips=0)


def test_an_evaluation_is_told_without_its_run(tmp_path, scored):
    folder = next(scored.rglob("scores.json")).parent
    shutil.copytree(folder, tmp_path / "scores")
    for what in (folder, folder.parent, tmp_path / "scores", tmp_path):
        text = Reader(report(what)).text
        assert "majority class" in text
        assert "How to repeat it" in text


def test_the_function_writes_what_it_returns(tmp_path, scored):
    text = melpatch_package.report(str(scored), tmp_path / "report.html", clips=0, worst=0)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == text
    assert is_own_report(tmp_path / "report.html")
    with pytest.raises(ConfigError, match="worst = 101; allowed: 0 to 100"):
        melpatch_package.report(scored, worst=101)


def test_the_command_writes_a_page_and_replaces_only_its_own(tmp_path, scored, capsys):
    out = tmp_path / "a" / "report.html"
    melpatch("report", scored, "--out", out, "--worst", 1)
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert is_own_report(out)
    melpatch("report", scored, "--out", out, "--worst", 0)
    out.write_text("mine")
    assert main(["report", str(scored), "--out", str(out)]) == 2
    assert "was not made by this command" in capsys.readouterr().err
    assert main(["report", str(scored), "--out", str(scored / "config.toml"), "--overwrite"]) == 2
    assert "is an input" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("worst", "expected"), [(0, "without sound"), (2, "with 2 sounds to hear")]
)
def test_the_command_says_how_many_sounds_leave_with_a_page(
    tmp_path, scored, capsys, worst, expected
):
    out = tmp_path / "page.html"
    assert (
        main(["report", str(scored), "--out", str(out), "--clips", "0", "--worst", str(worst)]) == 0
    )
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("words", [["gone"], ["."]])
def test_a_folder_of_nothing_is_refused(tmp_path, monkeypatch, words, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *words, "--out", "x.html"]) == 2
    assert "holds no run (config.toml)" in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()
