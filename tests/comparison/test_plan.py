"""From a spec to commands: every run and score once, all that it hangs on in its key, and no leak."""

import itertools
import os
from dataclasses import replace

import pytest
from comparison.specs import spec
from tiny_shards import packed, write_sounds

from melpatch.comparison.plan import plan, refuse_leaks
from melpatch.comparison.spec import Sound, Task
from melpatch.comparison.work import cost_key, score_keys
from melpatch.data.manifest import load_corpus
from melpatch.errors import ConfigError, DataError

pytestmark = pytest.mark.usefixtures("lists")


def planned(folder, *changes, budget=None):
    found = spec(folder, *changes)
    return plan(found, found.budget(budget))


def test_runs_are_methods_by_lengths_by_seeds(tmp_path):
    runs = planned(tmp_path)
    assert [(run.method.name, run.budget, run.seed) for run in runs] == [
        (method, budget, seed)
        for seed in (0, 1)
        for method, budget in (("random", "none"), ("mine", "10 steps"), ("mine", "1000000 steps"))
    ]
    sound = ("--data", "sounds.csv", "--split-column", "split", "--exclude-splits", "1")
    assert runs[0].words == ("ssast", "--seconds", "1", "--size", "tiny", *sound, "--steps", "0")
    assert runs[1].words == ("maskspec", "--seconds", "1", "--lr", "1e-3", "--size", "tiny", *sound)
    assert [run.size for run in planned(tmp_path, budget="large")] == [
        "small",
        "small",
        "base",
        "base",
    ]
    assert planned(tmp_path, budget="large")[1].budget == "the recipe's"


def test_scores_are_tasks_by_their_protocols(tmp_path):
    random, mine, *_ = planned(tmp_path)
    birds = (
        "--data",
        "birds.csv",
        "--split-column",
        "fold",
        "--protocol",
        "knn",
        "--split",
        "1",
        "2",
    )
    words = (
        "--data",
        "words.csv",
        "--split-column",
        "split",
        "--protocol",
        "linear",
        "--set",
        "C=1.0",
    )
    assert [one.words for one in mine.scorings] == [
        (*birds, "--seeds", "0"),
        (*words, "--seeds", "0"),
    ]
    assert [one.words[-3] for one in random.scorings] == ["--random-weights"] * 2


def test_weights_of_others_are_scored_as_they_are(tmp_path):
    changes = (
        ("trained = false", "trained = false\ninit = true"),
        ("steps = [10", 'init = "deit.pth"\nsteps = [10'),
    )
    random, mine, *_ = planned(tmp_path, *changes)
    assert random.words[-4:] == ("--init", "deit.pth", "--steps", "0")
    assert "--random-weights" not in random.scorings[0].words
    assert "--init" not in mine.words


def test_every_run_has_a_key_and_a_name_of_its_own(tmp_path):
    runs = planned(tmp_path)
    assert len({run.key for run in runs}) == len({run.name for run in runs}) == len(runs)
    assert planned(tmp_path)[1].name == runs[1].name
    for change in (
        ("--lr 1e-3", "--lr 2e-3"),
        ('"sounds.csv"', '"other.csv"'),
        ("steps = [10", "epochs = [10"),
    ):
        rest = [("1000000", "20")] if "epochs" in change[1] else []
        assert planned(tmp_path, change, *rest)[1].name != runs[1].name
    assert runs[1].name.startswith("mine-tiny-10-steps-seed-0-")


@pytest.mark.parametrize(
    ("name", "old", "new", "runs", "scores"),
    [
        ("sounds.csv", "a.wav,0", "g.wav,0", True, [True, True]),
        ("birds.csv", "d.wav,2,x", "d.wav,2,y", False, [True, False]),
        ("words.csv", "f.wav,test", "f.wav,val", False, [False, True]),
    ],
)
def test_other_clips_in_a_list_are_other_cells(lists, name, old, new, runs, scores):
    before, listed = planned(lists)[1], (lists / name).read_text()
    (lists / name).write_text(listed.replace(old, new))
    after = planned(lists)[1]
    assert (after.key != before.key, after.name != before.name) == (runs, runs)
    assert [
        new != old for new, old in zip(score_keys(after), score_keys(before), strict=True)
    ] == scores
    (lists / name).write_text(listed)
    assert planned(lists)[1].key == before.key


@pytest.mark.parametrize("there", [None, b"noise"])
def test_another_sound_file_is_another_run(lists, there):
    if there is not None:
        (lists / "a.wav").write_bytes(there)
    before = planned(lists)[1]
    (lists / "a.wav").write_bytes(b"sound")
    os.utime(lists / "a.wav", (1, 1))
    assert planned(lists)[1].key != before.key
    assert cost_key(planned(lists)[1]) != cost_key(before)


def test_the_same_files_of_another_time_are_the_same_run(lists):
    (lists / "a.wav").write_bytes(b"sound")
    (lists / "weights.pth").write_bytes(b"weights")
    changes = (
        ('recipe = "maskspec"', "init = true"),
        ("steps = [10", 'init = "weights.pth"\nsteps = [10'),
    )
    before = planned(lists, *changes)[1]
    for name in ("a.wav", "weights.pth"):
        os.utime(lists / name, (1, 1))
    assert planned(lists, *changes)[1].key == before.key
    assert [*score_keys(planned(lists, *changes)[1])] == [*score_keys(before)]


@pytest.mark.parametrize("file", ["weights.pth", "run/model.safetensors"])
def test_other_weights_to_start_from_are_another_run(lists, file):
    init = file.partition("/")[0]
    changes = (
        ('recipe = "maskspec"', "init = true"),
        ("steps = [10", f'init = "{init}"\nsteps = [10'),
    )
    (lists / file).parent.mkdir(exist_ok=True)
    (lists / file).write_bytes(b"1")
    random, mine, *_ = planned(lists, *changes)
    (lists / file).write_bytes(b"22")
    assert planned(lists, *changes)[1].key != mine.key
    assert planned(lists, *changes)[0].key == random.key  # it starts from none


def test_another_version_of_a_protocol_is_another_score(lists, monkeypatch):
    before = planned(lists)[1]
    monkeypatch.setattr("melpatch.protocols.knn.KNN.version", 99)
    after = planned(lists)[1]
    assert after.key == before.key
    assert [new != old for new, old in zip(score_keys(after), score_keys(before), strict=True)] == [
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([('data = ["sounds.csv"]', "")], "data = .*give it with --data"),
        ([('protocols = ["knn"]', "protocols = []")], "protocols = .*give them with --protocol"),
        ([('recipe = "ssast"', "")], "recipe = '' ?.*of method 'random' in budget 'small'"),
        ([("trained = false", "init = true")], "init = ''.*give --init"),
    ],
)
def test_what_is_missing_is_told_with_its_flag(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        planned(tmp_path, *changes)


def test_a_scored_file_that_is_pretrained_on_is_refused_by_name(tmp_path):
    refuse_leaks(spec(tmp_path))
    with pytest.raises(
        DataError,
        match=r"b\.wav: is scored by birds but pretrained on.*split \(1\) out with --exclude-splits",
    ):
        refuse_leaks(spec(tmp_path, ('exclude_splits = ["1"]', 'exclude_splits = ["0"]')))
    with pytest.raises(
        DataError, match=r"a\.wav: is scored by birds"
    ):  # without splits, every fold is scored
        refuse_leaks(spec(tmp_path, ('split = ["1", "2"]', "")))


def test_a_split_of_a_name_that_is_there_keeps_no_other_out(tmp_path):
    """``dev`` is val where there is no dev; here there are both, and val is pretrained on."""
    (tmp_path / "all.csv").write_text("path,split,label\na.wav,train,x\nb.wav,dev,x\nc.wav,val,x\n")
    sound = Sound(data=(str(tmp_path / "all.csv"),), exclude_splits=("dev",))
    task = Task(name="birds", data=str(tmp_path / "all.csv"), split=("val",))
    with pytest.raises(DataError, match=r"c\.wav: is scored by birds"):
        refuse_leaks(replace(spec(tmp_path), sound=sound, tasks=(task,)))


def test_packed_clips_are_told_apart_in_one_shard(tmp_path):
    corpus = load_corpus([write_sounds(tmp_path / "noise")])
    splits = itertools.cycle(["train", "test"])
    clips = tuple(replace(clip, split=next(splits)) for clip in corpus.clips)
    folder = packed(replace(corpus, clips=clips), tmp_path / "shards")
    sound = Sound(data=(str(folder),))
    task = Task(name="birds", data=str(folder), split=("test",))
    both = replace(spec(tmp_path), sound=sound, tasks=(task,))
    refuse_leaks(both)
    with pytest.raises(DataError, match=r"is scored by birds but pretrained on"):
        refuse_leaks(replace(both, sound=replace(sound, exclude_splits=("train",))))


def test_without_a_word_test_is_scored_and_stays_out(tmp_path):
    (tmp_path / "words.csv").write_text(
        "path,split,label\na.wav,train,x\nc.wav,test,x\nb.wav,val,x\n"
    )
    refuse_leaks(
        spec(tmp_path, ('exclude_splits = ["1"]', ""), ('split = ["1", "2"]', 'split = ["2"]'))
    )
    with pytest.raises(DataError, match=r"c\.wav: is scored by words"):
        refuse_leaks(spec(tmp_path))  # --exclude-splits 1 lets test in
