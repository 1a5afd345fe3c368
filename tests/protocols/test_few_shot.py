"""Few shots: so many clips per class, other ones under every seed, a smaller draw part of a larger one."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
from protocols.made_up import corpus, job

from melpatch.errors import ConfigError
from melpatch.protocols.few_shot import FewShot


@dataclass(frozen=True, kw_only=True)
class Watched(FewShot):
    """Keeps which clips it learns from."""

    seen: ClassVar[dict[tuple[int, int], set[int]]] = {}

    def fit_predict(self, train, val, test, *, multi_label, seed):
        self.seen[self.k, seed] = {clip.key for clip in train.features.clips}
        return super().fit_predict(train, val, test, multi_label=multi_label, seed=seed)


@pytest.fixture
def drawn(tmp_path):
    """A function from a number per class, and a corpus, to the clips that each of five seeds draws."""

    def draw(k, known=None, labels_per_class=None):
        Watched.seen.clear()
        Watched(k=k).run_trials(
            job(
                tmp_path / str(k),
                known or corpus(120),
                seeds=(0, 1, 2, 3, 4),
                labels_per_class=labels_per_class,
            )
        )
        return [Watched.seen[k, seed] for seed in range(5)]

    return draw


def per_class(known, keys):
    return [
        sum(clip.key in keys for clip in known.clips if clip.labels == (label,))
        for label in known.labels
    ]


def test_every_class_gives_as_many(drawn):
    known = corpus(120)
    for keys in drawn(4, known):
        assert per_class(known, keys) == [4, 4, 4]
        assert {clip.split for clip in known.clips if clip.key in keys} == {"train"}


def test_draws_differ_between_seeds_and_are_nested(drawn):
    small, large = drawn(2), drawn(5)
    assert len({frozenset(keys) for keys in large}) == 5
    for few, many in zip(small, large, strict=True):
        assert few < many


def test_classes_that_have_fewer_give_all_they_have(drawn):
    known = corpus(120)
    rare = [clip for clip in known.clips if clip.labels == ("dog",) and clip.split == "train"][3:]
    left = replace(known, clips=tuple(clip for clip in known.clips if clip not in rare))
    for keys in drawn(7, left):
        assert per_class(left, keys) == [7, 3, 7]


def test_a_job_may_ask_for_fewer_still(drawn):
    assert [len(keys) for keys in drawn(4, labels_per_class=2)] == [6] * 5
    assert [len(keys) for keys in drawn(2, labels_per_class=4)] == [6] * 5


def test_it_repeats_itself_five_times():
    assert FewShot.num_seeds == 5


@pytest.mark.parametrize("wrong", [{"k": 0}, {"C": 0.0}, {"C": float("nan")}])
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError, match="allowed: "):
        FewShot(**wrong)
