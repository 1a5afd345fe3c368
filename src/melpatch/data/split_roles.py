"""Splits by their usual names: what trains, what validates, what is held out for the test."""

import re
from collections.abc import Collection, Iterable
from typing import Literal

SplitRole = Literal["train", "val", "test"]

_NAMES: dict[str, SplitRole] = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "devel"), "val"),
    **dict.fromkeys(("development",), "val"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation"), "test"),
    **dict.fromkeys(("holdout", "hold-out", "hold_out"), "test"),
    **dict.fromkeys(("heldout", "held-out", "held_out"), "test"),
}
# Ends of the names of splits.
_SET = re.compile(r"[-_ ]?(set|split|data)$")
_DEVELOPMENT = {"dev", "devel", "development"}
_WITHOUT_LABELS = re.compile(r"pre-?train(ing)?|unlabell?ed|unsup(ervised)?|extra[-_ ]unlabell?ed")


def usual_split(name: str) -> SplitRole | None:
    """Return ``train``, ``val`` or ``test`` for a usual name of it, in any case; else None."""
    return _NAMES.get(_plain(name))


def split_in_name(name: str) -> str:
    """Return the split that a word in the name of a file or folder stands for; ``""`` for none or several.

    >>> split_in_name("esc_eval_data_1")
    'test'
    """
    roles = {role for word in re.split(r"[\W\d_]+", name) if (role := usual_split(word))}
    return roles.pop() if len(roles) == 1 else ""


def _plain(name: str) -> str:
    """Return a name in lower case without what adds nothing: ``TrainSet`` is train."""
    return _SET.sub("", name.strip().casefold())


def role_of(name: str) -> SplitRole | None:
    """Return what a split is for, also for names such as ``test-clean`` and ``train_360``."""
    usual = usual_split(name)
    if usual is not None:
        return usual
    first = re.match(r"[^\W\d_]+", name.strip())
    if first is None or first.end() == len(name.strip()):
        return None
    return usual_split(first[0])


def for_pretraining(name: str) -> bool:
    """Return whether a split is meant for training without labels, such as ``unlabelled``."""
    return not name or _WITHOUT_LABELS.fullmatch(name.strip().casefold()) is not None


def not_trained_on(names: Iterable[str]) -> list[str]:
    """Return the splits that are left out of pretraining unless the user says otherwise.

    These are the splits for validation and test; beside a split for training also those of unknown
    names, but not those for training without labels.
    """
    names = list(names)
    roles = {name: role_of(name) for name in names}
    has_train = "train" in roles.values()
    return [
        name
        for name in names
        if roles[name] in ("val", "test")
        or (has_train and roles[name] is None and not for_pretraining(name))
    ]


def usual_names(names: Collection[str]) -> dict[str, str]:
    """Return the names to use for splits: ``train``, ``val`` and ``test`` for their synonyms.

    ``dev`` is the training part of an ``eval``, unless there is another one. Of several synonyms
    that differ by more than their case, such as ``dev`` and ``val``, only one is renamed.
    """
    roles = {name: usual_split(name) for name in names}
    if "train" not in roles.values():
        for name in names:
            if _plain(name) in _DEVELOPMENT:
                roles[name] = "train"
    renamed = {name: name for name in names}
    for role in ("train", "val", "test"):
        synonyms = [name for name in names if roles[name] == role]
        if synonyms:
            # The name itself comes first, then the order of the list above.
            chosen = min(synonyms, key=lambda name: [*_NAMES].index(_plain(name)))
            for name in synonyms:
                if _plain(name) == _plain(chosen):
                    renamed[name] = role
    return renamed
