"""Sound inside Parquet through training and the commands: the run is that on shards, whatever the workers."""

import csv

import pytest
from parquet_files import write_clips
from tiny_runs import settings, with_loader
from tiny_shards import packed

from melpatch.cli import main
from melpatch.data.manifest import load_corpus
from melpatch.training.config import build
from melpatch.training.loop import fit
from melpatch.training.run import Run


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parquet")
    return write_clips(folder / "train-00000-of-00001.parquet", range(10), row_group_size=3)


def train(corpus, folder, *, workers=0, **how):
    """Run six steps, or go on with them, and return what they leave."""
    if not (folder / "config.toml").exists():
        config = settings(steps=6, save_every=2, evaluations=3)
        Run.create(folder, with_loader(config, workers=workers, shards_at_once=2))
    run = Run.reopen(folder)
    fit(build(run.config), corpus, run, **how)
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def run(file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(load_corpus([file]), folder)
    return folder


@pytest.fixture(scope="module")
def weights(run):
    return (run / "model.safetensors").read_bytes()


def test_workers_do_not_change_a_run(file, weights, tmp_path):
    assert train(load_corpus([file]), tmp_path / "run", workers=2) == weights


def test_a_killed_run_goes_on_as_if_it_had_not_been(file, weights, tmp_path):
    def killed(objective, step):
        raise Killed

    with pytest.raises(Killed):
        train(load_corpus([file]), tmp_path / "run", evaluate=killed, workers=2)
    assert train(load_corpus([file]), tmp_path / "run") == weights


def test_a_list_or_shards_of_it_keep_keys_and_sound(file, tmp_path):
    corpus = load_corpus([file])
    assert main(["prepare", str(file), "--out", str(tmp_path / "x.csv"), "--workers", "0"]) == 0
    assert load_corpus([tmp_path / "x.csv"]).clips == corpus.clips
    shards = load_corpus([packed(corpus, tmp_path / "shards")])
    assert {clip.key: clip.labels for clip in shards.clips} == {
        clip.key: clip.labels for clip in corpus.clips
    }


def test_embeddings_of_it_can_be_read_back(file, run, tmp_path):
    corpus = load_corpus([file])
    out = tmp_path / "out.csv"
    assert main(["embed", str(run), str(file), "--out", str(out), "--workers", "0"]) == 0
    with out.open(newline="") as table:
        rows = [*csv.DictReader(table)]
    assert [int(row["key"]) for row in rows] == [clip.key for clip in corpus.clips]
    # The place of each row is read back as it was written.
    again = load_corpus([out])
    assert [(c.path, c.offset, c.crc32) for c in again.clips] == [
        (c.path, c.offset, c.crc32) for c in corpus.clips
    ]
