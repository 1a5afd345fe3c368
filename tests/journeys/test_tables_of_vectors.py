"""A table of vectors goes on its way alone: what it says of itself is enough to make it again."""

import json
import shutil

import numpy as np
import pytest
from journeys.three_sounds import melpatch, settings, write_folder, write_run

from melpatch.inference.table_about import about_beside, read_about

ENDINGS = ("npz", "parquet", "csv")


def shown(capsys, table):
    capsys.readouterr()
    melpatch("show", table, "--json")
    return json.loads(capsys.readouterr().out)


def test_a_table_that_was_passed_on_tells_how_its_vectors_were_made(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path / "run", settings())
    sounds = write_folder(tmp_path / "sounds")
    melpatch("fit-embedding", run, "--data", sounds, "--dim", "4", "--workers", "0")
    (tmp_path / "elsewhere").mkdir()
    for ending in ENDINGS:
        table = tmp_path / f"v.{ending}"
        melpatch("embed", "run", "sounds", "--pooling", "fitted", "--out", table)
        shutil.move(table, tmp_path / "elsewhere")
    shutil.move(about_beside(tmp_path / "v.csv"), tmp_path / "elsewhere")
    passed_on = [tmp_path / "elsewhere" / f"v.{ending}" for ending in ENDINGS]

    about, *others = [shown(capsys, table) for table in passed_on]
    assert others == [about, about]
    assert about["run"] == "run"
    assert about["dim"] == 4
    assert about["pooling"].startswith("fitted (rows+mean+std+delta+input to 4, ")
    # The hash is the one by which an index knows the run.
    melpatch("index", run, sounds, "--out", "index", "--workers", "0")
    (segment,) = (tmp_path / "index").glob("*/about.json")
    assert json.loads(segment.read_text(encoding="utf-8"))["model"] == about["model"]

    words = ["--pooling", about["spelling"], "--precision", about["precision"]]
    melpatch("embed", about["run"], "sounds", *words, "--out", "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == passed_on[0].read_bytes()

    # Another fit of the same weights makes other vectors, and says so.
    words = ["--dim", "4", "--no-whiten", "--overwrite", "--workers", "0"]
    melpatch("fit-embedding", run, "--data", sounds, *words)
    melpatch("embed", "run", "sounds", "--pooling", "fitted", "--out", "other.npz")
    other = read_about(tmp_path / "other.npz")
    assert other["model"] == about["model"]
    assert other["pooling"] != about["pooling"]
    with np.load("other.npz") as here, np.load(passed_on[0]) as there:
        assert not np.array_equal(here["embeddings"], there["embeddings"])

    # A table of recordings to other commands, as before.
    melpatch("embed", "run", passed_on[2], "--pooling", "mean", "--out", "means.npz")
    assert read_about(tmp_path / "means.npz")["pooling"] == "mean"
