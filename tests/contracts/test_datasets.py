"""What holds of every public dataset, on the tiny tree of its own layout that it writes."""

from collections import Counter
from pathlib import Path

import pytest

from melpatch import registry
from melpatch.audio.files import probe
from melpatch.commands.prepare import Config, run
from melpatch.data.clip import clip_key
from melpatch.data.manifest import load_corpus
from melpatch.errors import ConfigError, DataError

CARDS = {name: registry.find("datasets", name) for name in registry.names("datasets")}
CASES = [
    pytest.param(name, subset, id=f"{name}-{subset}")
    for name in CARDS
    for subset in CARDS[name].subsets or ("",)
]


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """Return a function from a dataset's name to the folder of its fake, written once."""
    roots = {}

    def tree(name):
        if name not in roots:
            roots[name] = tmp_path_factory.mktemp(name) / "release"
            CARDS[name].fake(roots[name])
        return roots[name]

    return tree


def prepared(name, root, out, subset=""):
    run(Config(sources=(name,), root=root, subset=subset, out=out, workers=0))
    return load_corpus([out])


@pytest.mark.parametrize("name", CARDS)
def test_the_card_says_what_one_should_know(name):
    card = CARDS[name]
    assert card.name == name
    for words in (card.summary, card.licence, card.size, card.metric, card.download):
        assert words.strip() == words != ""
        assert "\n" not in words
    assert len(set(card.splits)) == len(card.splits) > 0
    assert card.labels == tuple(sorted(set(card.labels)))
    assert len(card.subsets) != 1


@pytest.mark.parametrize(("name", "subset"), CASES)
def test_a_reader_finds_its_own_fake(name, subset, trees):
    card, root = CARDS[name], trees(name)
    entries = card.clips(root, subset)
    assert entries == card.clips(root, subset)
    assert {entry.split for entry in entries} <= set(card.splits)
    if card.labels:
        assert {label for entry in entries for label in entry.label.split(";")} - {""} <= set(
            card.labels
        )
    assert len({(entry.path, entry.start) for entry in entries}) == len(entries)
    assert len({(entry.name or entry.path, entry.start) for entry in entries}) == len(entries)
    for entry in entries:
        assert probe(root / entry.path).duration >= entry.start + (entry.duration or 0)
        assert not Path(entry.path).is_absolute()


@pytest.mark.parametrize("name", CARDS)
def test_the_default_subset_fills_every_split(name, trees):
    card = CARDS[name]
    found, missing = card.look_up(trees(name))
    assert {row.split for row in found} == set(card.splits)
    assert missing == []
    if card.subsets:
        assert found == card.look_up(trees(name), card.subsets[0])[0]


@pytest.mark.parametrize(("name", "subset"), CASES)
def test_no_group_stands_in_two_splits(name, subset, trees):
    splits = {
        (entry.group, entry.split)
        for entry in CARDS[name].clips(trees(name), subset)
        if entry.group
    }
    assert [
        group for group, count in Counter(group for group, _ in splits).items() if count > 1
    ] == []


@pytest.mark.parametrize(("name", "subset"), CASES)
def test_prepared_it_is_read_back_as_listed(name, subset, trees, tmp_path, capsys):
    entries = CARDS[name].clips(trees(name), subset)
    corpus = prepared(name, trees(name), tmp_path / "out.csv", subset)
    found = [
        (clip.path, clip.labels, clip.split, clip.start, clip.group, clip.key)
        for clip in corpus.clips
    ]
    assert found == [
        (
            trees(name) / entry.path,
            tuple(filter(None, entry.label.split(";"))),
            entry.split,
            entry.start,
            entry.group,
            clip_key(name, entry.name or entry.path, entry.start),
        )
        for entry in entries
    ]
    told = capsys.readouterr()
    assert CARDS[name].licence in " ".join(told.out.split())
    assert told.err == ""


@pytest.mark.parametrize("name", CARDS)
def test_a_clip_that_is_gone_is_counted_and_stops_nothing(name, tmp_path, capsys):
    root = tmp_path / "release"
    CARDS[name].fake(root)
    before = CARDS[name].clips(root, next(iter(CARDS[name].subsets), ""))
    gone = next(entry for entry in before if entry.split != "train")
    (root / gone.path).unlink()
    corpus = prepared(name, root, tmp_path / "out.csv")
    assert len(corpus.clips) == len(before) - 1
    assert (
        f"1 of {len(before)} clips is missing, listed in {tmp_path / 'out.missing.csv'}"
        in capsys.readouterr().err
    )
    assert Path(gone.path).stem[:11] in (tmp_path / "out.missing.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CARDS)
def test_a_folder_without_it_says_what_to_download(name, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "nowhere"):
        with pytest.raises(DataError) as caught:
            CARDS[name].look_up(tmp_path / folder)
        assert str(tmp_path) in str(caught.value)
        assert CARDS[name].download in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", CARDS)
def test_lists_without_sound_say_what_to_download(name, tmp_path):
    CARDS[name].fake(tmp_path)
    for path in [*tmp_path.rglob("*.wav"), *tmp_path.rglob("*.flac")]:
        path.unlink()
    with pytest.raises(DataError, match="holds no") as caught:
        CARDS[name].look_up(tmp_path)
    assert CARDS[name].download in str(caught.value)


@pytest.mark.parametrize("name", CARDS)
def test_a_subset_that_does_not_exist_is_named_beside_those_that_do(name, tmp_path):
    with pytest.raises(ConfigError, match=r"subset = 'all'; allowed: ") as caught:
        CARDS[name].look_up(tmp_path, "all")
    assert ", ".join(CARDS[name].subsets) in str(caught.value)
