"""The demo on a user's own folder, with and without classes; on made-up scenes it is what ``make demo`` runs."""

import io
import re
from contextlib import redirect_stderr, redirect_stdout

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


@pytest.fixture(scope="module", autouse=True)
def no_pictures_of_evaluations():
    """They take longer than all else, and are not the demo's own."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in ("confusion", "per_class"):
            patch.setattr(f"melpatch.evaluation.pictures.{kind}", lambda path, **_: None)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for sounds and demos."""
    return tmp_path_factory.mktemp("place")


def demo(place, sounds):
    melpatch("demo", "--data", sounds, "--out", place / "demo", *BRIEF)


@pytest.fixture(scope="module")
def shown(place):
    """What a demo on sounds of three classes prints, and where it leaves its files."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        # As wide in each test, and wide enough for the table.
        patch.setenv("COLUMNS", "160")
        demo(place, write_folder(place / "sounds"))
    return place / "demo" / "sounds", out.getvalue(), err.getvalue()


def test_it_walks_the_whole_way_and_leaves_pictures(shown):
    folder, out, err = shown
    floors = ("majority class", "log-mel statistics", "MFCC statistics")
    for row in ("fine-tuned", "frozen, kNN", "frozen, linear", *floors):
        assert row in out
    # A paired gain with its interval for each row: three over random weights, three over floors.
    assert len(re.findall(r"[+-]\d\.\d{3} \[[+-]\d\.\d{3}, [+-]\d\.\d{3}\]", out)) == 6
    assert "a quarter of each class is held out" in err
    pictures = folder / "pictures"
    assert str(pictures) in out.replace("\n", "")
    drawn = {path.name for path in pictures.iterdir()}
    assert drawn == {
        "pretraining.png",
        "reconstruction.png",
        "two_views.png",
        "confusion-random.png",
        "confusion-pretrained.png",
    }


def test_it_goes_on_where_it_was_interrupted(place, shown, capsys):
    folder, table, _ = shown
    metrics = folder / "pretrained" / "metrics.jsonl"
    before = metrics.read_bytes()
    demo(place, place / "sounds")
    assert metrics.read_bytes() == before
    assert capsys.readouterr().out == table


def test_another_folder_without_classes_gets_a_run_of_its_own_that_is_drawn(place, shown, capsys):
    demo(place, place / "sounds" / "noise")
    assert "no classes, so there is nothing to fine-tune" in capsys.readouterr().err
    drawn = {path.name for path in (place / "demo" / "noise" / "pictures").iterdir()}
    assert drawn == {"pretraining.png", "reconstruction.png", "two_views.png"}
    assert {path.name for path in (place / "demo").iterdir()} == {"sounds", "noise"}
