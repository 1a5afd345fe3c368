"""What every protocol does alike: trials are kept, taken again as long as nothing has changed, and tell their cost."""

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar, get_args

import numpy as np
import pytest
from protocols.made_up import LABELS, Features, corpus, job, relabelled

from melpatch.data.corpus import Rejected
from melpatch.errors import CheckpointError, DataError
from melpatch.evaluation.protocol import Protocol
from melpatch.evaluation.splits import ValidationSource, describe_split_rule
from melpatch.protocols.few_shot import FewShot
from melpatch.protocols.knn import KNN
from melpatch.protocols.linear import Linear


@dataclass(frozen=True, kw_only=True)
class Counted(KNN):
    """A kNN that counts how often it predicts."""

    calls: ClassVar[list[int]] = []

    def fit_predict(self, train, val, test, *, multi_label, seed):
        self.calls.append(seed)
        return super().fit_predict(train, val, test, multi_label=multi_label, seed=seed)


class Network(Features):
    """Made-up features of a network that is called so, and of which some clips cannot be read."""

    def __init__(self, told, identity="one", lost=frozenset()):
        super().__init__(told)
        self.fingerprint, self.lost, self.heard = identity, lost, []

    def vectors(self, corpus, pooling):
        self.heard += corpus.clips
        there = tuple(clip for clip in corpus.clips if clip.key not in self.lost)
        gone = tuple(
            Rejected(str(clip.path), "gone") for clip in corpus.clips if clip.key in self.lost
        )
        return replace(super().vectors(replace(corpus, clips=there), pooling), rejected=gone)


class Slow(Network):
    """A network that takes its time."""

    def vectors(self, corpus, pooling):
        time.sleep(0.3)
        return super().vectors(corpus, pooling)


@pytest.fixture(autouse=True)
def forget():
    Counted.calls.clear()


FOLDS = corpus(36, splits=("1", "2", "3"))
WHOLE = corpus(36)


def test_there_is_a_trial_for_every_round_and_seed(tmp_path):
    own = Counted(k=3, scaling="none")
    trials, told = own.run_trials(job(tmp_path, FOLDS, seeds=(0, 4)))
    assert [(one.split, one.seed) for one in trials] == [
        (fold, seed) for seed in (0, 4) for fold in "123"
    ]
    assert told["splits"] == [
        {"split": fold, "train_clips": 24, "val_clips": 0, "test_clips": 12} for fold in "123"
    ]
    for one in trials:
        assert {clip.split for clip in one.clips} == {one.split}
        assert one.probabilities.shape == (12, 3)
        assert one.probabilities.argmax(1).tolist() == [
            FOLDS.labels.index(clip.labels[0]) for clip in one.clips
        ]
        assert one.details["train_clips"] == 24
        assert one.details["seconds"] >= 0


def test_finished_trials_are_taken_again(tmp_path):
    asked = job(tmp_path, FOLDS)
    first, _ = Counted().run_trials(asked)
    assert Counted.calls == [0, 0, 0]
    again, _ = Counted().run_trials(replace(asked, seeds=(0, 1)))
    assert Counted.calls == [0, 0, 0, 1, 1, 1]
    for one, other in zip(first, again, strict=False):
        assert (one.split, one.seed, one.clips, one.details) == (
            other.split,
            other.seed,
            other.clips,
            other.details,
        )
        np.testing.assert_array_equal(one.probabilities, other.probabilities)


def test_what_the_embedding_took_is_told_apart(tmp_path):
    (one,), _ = KNN(k=3).run_trials(replace(job(tmp_path, WHOLE), features=Slow(WHOLE)))
    assert one.details["embedding_seconds"] >= 0.3 > one.details["seconds"]


def test_the_order_of_the_clips_is_no_change(tmp_path):
    Counted().run_trials(job(tmp_path, FOLDS))
    Counted().run_trials(job(tmp_path, replace(FOLDS, clips=FOLDS.clips[::-1])))
    assert len(Counted.calls) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"features": Network(FOLDS, "other")},
        {"labels_per_class": 2},
        {"corpus": replace(FOLDS, clips=FOLDS.clips[1:])},
        {
            "corpus": relabelled(
                FOLDS, lambda clip: clip.labels if clip.path.stem in "1 4 7" else (LABELS[0],)
            )
        },
        {"corpus": replace(FOLDS, labels=(*LABELS, "wind"))},
    ],
    ids=["network", "labels_per_class", "clips", "labels", "classes"],
)
def test_whatever_changes_the_trials_are_done_anew(tmp_path, change):
    Counted().run_trials(job(tmp_path, FOLDS))
    Counted().run_trials(replace(job(tmp_path, FOLDS), **change))
    assert len(Counted.calls) == 6


def test_a_setting_or_a_version_that_changes_makes_them_anew(tmp_path, monkeypatch):
    Counted().run_trials(job(tmp_path, FOLDS))
    Counted(k=3).run_trials(job(tmp_path, FOLDS))
    monkeypatch.setattr(Counted, "version", KNN.version + 1)
    Counted(k=3).run_trials(job(tmp_path, FOLDS))
    assert len(Counted.calls) == 9


def test_a_sound_file_that_changes_makes_them_anew(tmp_path):
    paths = [replace(clip, path=tmp_path / clip.path) for clip in WHOLE.clips]
    for clip in paths:
        clip.path.write_bytes(b"")
    known = replace(WHOLE, clips=tuple(paths))
    Counted().run_trials(job(tmp_path / "out", known))
    Counted().run_trials(job(tmp_path / "out", known))
    paths[0].path.write_bytes(b"longer")
    Counted().run_trials(job(tmp_path / "out", known))
    assert len(Counted.calls) == 2


def test_a_damaged_trial_is_named(tmp_path):
    Counted().run_trials(job(tmp_path, WHOLE))
    (path,) = (tmp_path / "out" / "trials").iterdir()
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(
        CheckpointError, match=f"{path}: a finished trial that cannot be read.*delete the file"
    ):
        Counted().run_trials(job(tmp_path, WHOLE))


def test_a_trial_of_which_a_byte_is_another_is_named(tmp_path):
    Counted().run_trials(job(tmp_path, WHOLE))
    (path,) = (tmp_path / "out" / "trials").iterdir()
    whole = path.read_bytes()
    for at in range(60, len(whole), 37):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        with suppress(CheckpointError):  # nothing else; a byte that nobody reads does no harm
            Counted().run_trials(job(tmp_path, WHOLE))


def test_few_labels_are_drawn_by_the_seed(tmp_path):
    (first, second), _ = Linear().run_trials(job(tmp_path, WHOLE, labels_per_class=2, seeds=(0, 1)))
    assert first.details["train_clips"] == second.details["train_clips"] == 6
    assert not np.array_equal(first.probabilities, second.probabilities)


def test_clips_that_cannot_be_read_are_told_and_neither_learnt_from_nor_scored(tmp_path):
    lost = frozenset(clip.key for clip in WHOLE.clips[::5])
    (one,), _ = KNN(k=3).run_trials(
        replace(job(tmp_path, WHOLE), features=Network(WHOLE, lost=lost))
    )
    assert {clip.key for clip in one.clips} == {
        clip.key for clip in WHOLE.clips if clip.split == "test"
    } - lost
    assert one.details["rejected"] == [str(clip.path) for clip in WHOLE.clips[::5]]


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_part_of_which_nothing_can_be_read_is_an_error(tmp_path, split):
    lost = frozenset(clip.key for clip in WHOLE.clips if clip.split == split)
    with pytest.raises(
        DataError, match=r"none of \d+ clips can be read; the first: .*wav \(gone\)"
    ):
        KNN().run_trials(replace(job(tmp_path, WHOLE), features=Network(WHOLE, lost=lost)))


def test_unlabelled_clips_are_not_even_heard(tmp_path):
    known = relabelled(WHOLE, lambda clip: clip.labels if clip.key % 2 else ())
    network = Network(WHOLE)
    KNN().run_trials(replace(job(tmp_path, known), features=network))
    assert {clip.key for clip in network.heard} == {clip.key for clip in known.clips if clip.labels}


def test_the_rule_is_that_of_the_choice():
    for choice in get_args(ValidationSource):

        @dataclass(frozen=True, kw_only=True)
        class Chosen(KNN):
            pass

        Chosen.validation, Chosen.held_out_share = choice, 0.3
        assert Chosen().split_rule() == describe_split_rule(choice, 0.3)


def test_a_protocol_without_a_trial_is_none():
    with pytest.raises(TypeError, match="abstract"):
        Protocol()


def test_few_shot_is_the_linear_probe_on_few_labels(tmp_path):
    shots, _ = FewShot(k=2).run_trials(job(tmp_path / "a", WHOLE, seeds=(0, 1)))
    plain, _ = Linear().run_trials(job(tmp_path / "b", WHOLE, seeds=(0, 1), labels_per_class=2))
    for one, other in zip(shots, plain, strict=True):
        np.testing.assert_array_equal(one.probabilities, other.probabilities)
