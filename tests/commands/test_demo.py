"""The demo on a user's own folder, with and without classes; on made-up scenes it is what ``make demo`` runs."""

import pytest
from journeys.three_sounds import melpatch, write_folder

BRIEF = (
    "--size",
    "nano",
    "--pretrain-steps",
    "3",
    "--finetune-steps",
    "2",
    "--labels-per-class",
    "2",
)


@pytest.fixture(autouse=True)
def no_pictures_of_evaluations(monkeypatch):
    """They take longer than all else, and are not the demo's own."""
    for kind in ("confusion", "per_class"):
        monkeypatch.setattr(f"melpatch.evaluation.report.{kind}", lambda *_: None)


def test_it_walks_the_whole_way_and_leaves_pictures(tmp_path, capsys):
    melpatch(
        "demo", "--data", write_folder(tmp_path / "sounds"), "--out", tmp_path / "demo", *BRIEF
    )
    told = capsys.readouterr()
    for row in ("fine-tuned", "frozen, kNN", "frozen, linear"):
        assert row in told.out
    assert "a quarter of each class is held out" in told.err
    pictures = tmp_path / "demo" / "sounds" / "pictures"
    assert str(pictures) in told.out.replace("\n", "")
    drawn = {path.name for path in pictures.iterdir()}
    assert drawn == {
        "pretraining.png",
        "reconstruction.png",
        "confusion-random.png",
        "confusion-pretrained.png",
    }


def test_it_goes_on_where_it_was_interrupted(tmp_path, capsys):
    words = (
        "demo",
        "--data",
        write_folder(tmp_path / "sounds"),
        "--out",
        tmp_path / "demo",
        *BRIEF,
    )
    melpatch(*words)
    metrics = tmp_path / "demo" / "sounds" / "pretrained" / "metrics.jsonl"
    before, table = metrics.read_bytes(), capsys.readouterr().out
    melpatch(*words)
    assert metrics.read_bytes() == before
    assert capsys.readouterr().out == table


def test_a_folder_without_classes_is_pretrained_on_and_drawn(tmp_path, capsys):
    sounds = write_folder(tmp_path / "sounds") / "noise"
    melpatch("demo", "--data", sounds, "--out", tmp_path / "demo", *BRIEF)
    assert "no classes, so there is nothing to fine-tune" in capsys.readouterr().err
    drawn = {path.name for path in (tmp_path / "demo" / "noise" / "pictures").iterdir()}
    assert drawn == {"pretraining.png", "reconstruction.png"}


def test_another_folder_gets_runs_of_its_own(tmp_path, capsys):
    for name in ("first", "second"):
        melpatch(
            "demo", "--data", write_folder(tmp_path / name), "--out", tmp_path / "demo", *BRIEF
        )
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {"first", "second"}
    capsys.readouterr()
