"""What a report shows of a network at work: masks, gradients, a map; and why it cannot."""

from dataclasses import replace

import pytest
from journeys.three_sounds import LABELS, settings, write_folder, write_run
from test_markup import Reader

from melpatch.data.sound import decode
from melpatch.errors import AudioError
from melpatch.markup import joined
from melpatch.reports import hearing
from melpatch.reports.hearing import hearing_sections
from melpatch.workflows.corpus import read_corpus


def shown(folder, config, clips=9):
    sections = hearing_sections(folder, config, clips)
    return Reader(joined(part for section in sections for part in section.parts)), sections


@pytest.mark.parametrize("labels", [(), LABELS])
def test_pictures_of_training_clips_and_a_map(tmp_path, labels):
    sounds = write_folder(tmp_path / "sounds", per_class=3)
    config = replace(settings(labels), data=(str(sounds),))
    page, sections = shown(write_run(tmp_path / "run", config), config)
    described = [attributes["alt"] for name, attributes in page.elements if name == "img"]
    kind = "Gradient map" if labels else "reconstruction"
    assert [text.startswith(kind) for text in described] == [True, True, True, False]
    assert described[3].startswith("Map of the embeddings")
    assert "9 clips of sounds" in described[3]
    assert all("run" in text and "sounds" in text for text in described)
    assert [section.title for section in sections][1] == "Map of the embeddings"


def test_a_clip_that_cannot_be_read_is_passed_over(tmp_path, monkeypatch):
    sounds = write_folder(tmp_path / "sounds", per_class=2)
    config = replace(settings(LABELS), data=(str(sounds),))
    run = write_run(tmp_path / "run", config)
    first, second, *_ = sorted(read_corpus(config).clips, key=lambda clip: clip.key)

    def decode_all_but_one(clip, rate):
        if clip.key == first.key:
            raise AudioError(clip.path, "is damaged", "delete it")
        return decode(clip, rate)

    monkeypatch.setattr(hearing, "decode", decode_all_but_one)
    page, _ = shown(run, config)
    described = [attributes["alt"] for name, attributes in page.elements if name == "img"]
    assert len(described) == 4
    assert f": {second.path.name} from" in described[0]


def test_data_that_are_gone_are_said_to_be(tmp_path):
    config = replace(settings(LABELS), data=(str(tmp_path / "gone"),))
    page, _ = shown(write_run(tmp_path / "run", config), config)
    assert "No pictures of training clips" in page.text
    assert "gone" in page.text


def test_no_clips_leave_all_of_it_out(tmp_path):
    assert hearing_sections(tmp_path, settings(), 0) == []
