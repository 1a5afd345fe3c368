"""``melpatch datasets``: all cards in a table, one whole, and both as JSON."""

import json

from melpatch import cli, registry
from melpatch.datasets.speech_commands import CARD


def shown(capsys, *words):
    assert cli.main(["datasets", *words]) == 0
    return capsys.readouterr().out


def test_the_table_has_every_dataset_and_a_line_for_own_recordings(capsys):
    out = shown(capsys)
    for name in registry.names("datasets"):
        assert f"\n {name} " in out
    assert "For your own folders and CSV files: melpatch prepare FOLDER" in out


def test_a_card_holds_what_to_download_and_how_to_prepare_it(capsys):
    out = " ".join(shown(capsys, "speech-commands").split())
    for words in (
        CARD.summary,
        CARD.size,
        CARD.download,
        "v2-35, v1-12 (--subset",
        "37: _silence_, _unknown_, backward",
    ):
        assert words in out
    assert "melpatch prepare speech_commands --root FOLDER --out speech_commands.csv" in out


def test_the_command_on_a_card_can_be_read(capsys):
    for name in registry.names("datasets"):
        line = " ".join(shown(capsys, name).split()).partition("prepare melpatch ")[2]
        _, config = cli.parse("prepare", line.split()[1:])
        assert config.sources == (name,)


def test_json_holds_the_cards(capsys):
    every = json.loads(shown(capsys, "--json"))
    assert list(every) == registry.names("datasets")
    assert every["speech_commands"] == json.loads(shown(capsys, "speech_commands", "--json"))
    assert every["speech_commands"]["splits"] == ["train", "val", "test"]
    assert every["speech_commands"].keys().isdisjoint({"clips", "fake"})
    made = {name for name, card in every.items() if card["make"]}
    assert made == {"machine_faults", "rare_events", "scenes"}


def test_an_unknown_dataset_is_refused_with_the_known_ones(capsys):
    assert cli.main(["datasets", "esc51"]) == 2
    assert (
        "unknown dataset 'esc51'; did you mean esc50? available: audioset, esc50"
        in capsys.readouterr().err
    )
