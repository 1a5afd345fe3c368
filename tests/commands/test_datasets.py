"""``melpatch datasets``: all cards in a table, one whole, and both as JSON."""

import json

from melpatch import cli, registry
from melpatch.datasets.speech_commands import CARD


def told(capsys, *words):
    assert cli.main(["datasets", *words]) == 0
    return capsys.readouterr().out


def test_the_table_has_every_dataset_and_says_that_own_sound_works_the_same(capsys):
    out = told(capsys)
    for name in registry.names("datasets"):
        assert f"\n {name} " in out
    assert "Own folders and CSV files work the same: melpatch prepare FOLDER" in out


def test_one_card_says_what_to_download_and_what_to_type_then(capsys):
    out = " ".join(told(capsys, "speech-commands").split())
    for words in (
        CARD.summary,
        CARD.size,
        CARD.download,
        "v2-35, v1-12 (--subset",
        "37: _silence_, _unknown_, backward",
    ):
        assert words in out
    assert "melpatch prepare speech_commands --root FOLDER --out speech_commands.csv" in out


def test_the_line_to_type_can_be_read(capsys):
    for name in registry.names("datasets"):
        line = " ".join(told(capsys, name).split()).partition("then type melpatch ")[2]
        _, config = cli.parse("prepare", line.split()[1:])
        assert config.sources == (name,)


def test_json_holds_what_the_cards_say(capsys):
    every = json.loads(told(capsys, "--json"))
    assert list(every) == registry.names("datasets")
    assert every["speech_commands"] == json.loads(told(capsys, "speech_commands", "--json"))
    assert every["speech_commands"]["splits"] == ["train", "val", "test"]
    assert every["speech_commands"].keys().isdisjoint({"clips", "fake"})


def test_an_unknown_dataset_is_named_beside_those_that_are(capsys):
    assert cli.main(["datasets", "esc51"]) == 2
    assert (
        "unknown dataset 'esc51'; did you mean esc50? available: audioset, esc50"
        in capsys.readouterr().err
    )
