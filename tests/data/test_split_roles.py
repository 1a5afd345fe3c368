import pytest

from melpatch.data.split_roles import not_trained_on, role_of, usual_names


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("Train", "Val", "Test"), ("train", "val", "test")),
        (("training", "valid", "testing"), ("train", "val", "test")),
        (("train", "validation", "eval"), ("train", "val", "test")),
        (("train", "dev", "TEST"), ("train", "val", "test")),
        (("TrainSet", "val_set", "test data"), ("train", "val", "test")),
        (("train", "Holdout"), ("train", "test")),
        # Without a split for training, the development set is the one.
        (("dev", "eval"), ("train", "test")),
        # Only one of two that differ is renamed, since they may be different.
        (("train", "dev", "val"), ("train", "dev", "val")),
        (("test", "Test", "eval"), ("test", "test", "eval")),
        (("1", "2", "fold3", "", "retest"), ("1", "2", "fold3", "", "retest")),
    ],
)
def test_usual_names_of_splits_are_understood(names, expected):
    assert tuple(usual_names(names)[name] for name in names) == expected


@pytest.mark.parametrize(
    ("names", "left_out"),
    [
        (("train", "val", "test"), ["val", "test"]),
        (("train", "holdout"), ["holdout"]),
        (("train", "unlabelled", "pretrain", ""), []),
        (("1", "2", "3"), []),
        (("train-clean-100", "dev-clean", "test-other"), ["dev-clean", "test-other"]),
    ],
)
def test_what_is_not_for_training_is_left_out_of_pretraining(names, left_out):
    assert not_trained_on(names) == left_out


def test_a_role_needs_a_word_of_its_own():
    assert [role_of(name) for name in ("test_2", "train 360", "tester", "contest", "5")] == [
        *("test", "train", None, None, None)
    ]
