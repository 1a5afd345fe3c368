"""What a table is of is kept with it, and a table of others without such facts is read all the same."""

import json

import numpy as np
import pytest

from melpatch.errors import CheckpointError, ConfigError
from melpatch.inference.calibration import Calibration
from melpatch.inference.table_about import (
    about_beside,
    check_beside,
    facts_of_answers,
    note_beside,
    read_about,
)
from melpatch.inference.tables import Column, write_table

ENDINGS = (".csv", ".npz", ".parquet")
FACTS = {"run": "runs/ü", "melpatch": "0.1.0", "layer": None, "dim": 3, "labels": ["a", "b"]}
COLUMNS = [
    Column("path", lambda rows: np.array([f"{row}.wav" for row in rows])),
    Column("embeddings", lambda rows: np.outer(rows, [1.0, 2.0, 3.0]).astype(np.float32), ".9g"),
]


def chunks():
    return iter([np.arange(3), np.arange(3, 5)])


def written(path, ending, about=FACTS):
    """Write a table as a command does: the facts beside a CSV file before the file itself."""
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    content = path.with_name(f"{path.name}.new")
    write_table(content, ending, COLUMNS, chunks, about)
    if ending == ".csv" and about is not None:
        note_beside(path, content, about)
    return content.replace(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_facts_are_those_that_were_given_whatever_the_name(tmp_path, ending):
    assert read_about(written(tmp_path / "table", ending)) == FACTS


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_table_without_facts_has_none(tmp_path, ending):
    assert read_about(written(tmp_path / "table", ending, None)) is None
    assert [path.name for path in tmp_path.iterdir()] == ["table"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_same_facts_are_the_same_bytes(tmp_path, ending):
    for name in ("a", "b"):
        written(tmp_path / name, ending)
    for beside in ("", ".about.json"):
        files = [tmp_path / f"{name}{beside}" for name in ("a", "b")]
        if ending == ".csv" or not beside:
            assert files[0].read_bytes() == files[1].read_bytes()


def test_numpy_and_pyarrow_read_the_facts_without_melpatch(tmp_path):
    with np.load(written(tmp_path / "a.npz", ".npz")) as table:
        assert json.loads(str(table["about"])) == FACTS
        assert table["about"].shape == ()
        assert table["embeddings"].shape == (5, 3)
    parquet = pytest.importorskip("pyarrow.parquet")
    path = written(tmp_path / "a.parquet", ".parquet")
    for metadata in (parquet.read_schema(path).metadata, parquet.read_table(path).schema.metadata):
        assert json.loads(metadata[b"melpatch"]) == FACTS


def test_a_csv_file_is_plain_and_the_facts_lie_beside_it(tmp_path):
    bare = written(tmp_path / "bare.csv", ".csv", None)
    table = written(tmp_path / "a.csv", ".csv")
    assert table.read_bytes() == bare.read_bytes()
    facts = json.loads((tmp_path / "a.csv.about.json").read_text(encoding="utf-8"))
    assert FACTS.items() <= facts.items()


def test_facts_of_another_content_of_a_csv_file_are_refused(tmp_path):
    table = written(tmp_path / "a.csv", ".csv")
    table.write_text(table.read_text(encoding="utf-8").replace("0.wav", "9.wav"), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"about\.json: .*a\.csv was changed since; write"):
        read_about(table)


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    names = (".a.csv.about.json", "..a.csv.about.json.digest", "..a.csv.digest")
    for name in names:
        (tmp_path / f"{name}.7.partial").write_text("{", encoding="utf-8")
    written(tmp_path / "a.csv", ".csv")
    there = {path.name for path in tmp_path.iterdir()}
    assert there == {"a.csv", "a.csv.about.json", ".a.csv.about.json.digest", ".a.csv.digest"}


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b"\xff"])
def test_damaged_facts_beside_a_csv_file_are_one_line(tmp_path, content):
    table = written(tmp_path / "a.csv", ".csv")
    about_beside(table).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.csv\.about\.json: damaged .*; write the table"):
        read_about(table)


@pytest.mark.parametrize(
    "value",
    [
        np.array("about sounds"),
        np.array('{"title": "sounds"}'),
        np.array("[1]"),
        np.array("[" * 100_000),
        np.array(['{"melpatch": "0.1.0"}']),
        np.arange(3),
        np.array([{"melpatch": "0.1.0"}], dtype=object),
    ],
    ids=["prose", "other facts", "list", "deep", "several", "numbers", "objects"],
)
def test_what_others_call_about_is_no_fact_of_ours(tmp_path, value):
    np.savez(tmp_path / "a.npz", embeddings=np.ones((2, 3)), about=value)
    assert read_about(tmp_path / "a.npz") is None


def test_metadata_of_others_under_our_key_is_no_fact_of_ours(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pa.table({"path": ["a.wav"]}).replace_schema_metadata({"melpatch": "hop length"})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert read_about(tmp_path / "a.parquet") is None


@pytest.mark.parametrize("ending", [".npz", ".parquet"])
def test_a_damaged_table_is_one_line(tmp_path, ending):
    table = written(tmp_path / "a", ending)
    table.write_bytes(table.read_bytes()[: table.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=r"a: damaged .*; write the table again"):
        read_about(table)


def test_a_file_of_others_beside_a_csv_file_is_kept(tmp_path):
    table = tmp_path / "a.csv"
    check_beside(table, [], overwrite=False, flag="--out")
    about_beside(table).write_text("{}", encoding="utf-8")
    message = r"beside --out .*a\.csv\.about\.json: exists, and was not made by this command"
    with pytest.raises(ConfigError, match=message):
        check_beside(table, [], overwrite=False, flag="--out")
    check_beside(table, [], overwrite=True, flag="--out")
    with pytest.raises(ConfigError, match="is an input"):
        check_beside(table, [about_beside(table)], overwrite=True, flag="--out")
    written(table, ".csv")
    check_beside(table, [], overwrite=False, flag="--out")
    about_beside(table).write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="or was changed since"):
        check_beside(table, [], overwrite=False, flag="--out")


def answers(calibration, **changes):
    settings = {"multi_label": False, "thresholds": None, "threshold": None, "false_alarms": 0.05}
    return facts_of_answers(("a", "b"), calibration, **(settings | changes))


def test_the_facts_of_answers_name_classes_and_the_rule_of_their_thresholds():
    assert answers(None) == {
        "labels": ["a", "b"],
        "multi_label": False,
        "calibration": None,
        "threshold_rule": "the most probable class",
        "thresholds": None,
        "false_alarms": None,
    }
    half = np.full(2, 0.5)
    given = answers(None, multi_label=True, thresholds=half)
    assert (given["threshold_rule"], given["thresholds"]) == ("the same for all classes", [0.5] * 2)
    learnt = np.array([0.25, 0.75], np.float32)
    calibration = Calibration(True, 2.0, 40, learnt, "best F1 of each class")
    facts = answers(calibration, multi_label=True, thresholds=learnt)
    assert facts["calibration"] == {"temperature": 2.0, "clips": 40}
    assert facts["threshold_rule"] == "best F1 of each class"
    assert facts["thresholds"] == [0.25, 0.75]
    # No novelty is known, so nothing was called none of these.
    assert facts["false_alarms"] is None
    facts = answers(calibration, multi_label=True, thresholds=half, threshold=0.5)
    assert facts["threshold_rule"] == "the same for all classes"
