"""The quality report: what is odd is told with its file, and a clean corpus has nothing to tell."""

import numpy as np
import pytest
import soundfile

from melpatch.audio.survey import survey
from melpatch.data.corpus import Corpus
from melpatch.data.quality import case_variants, corpus_notices, file_findings

RATE = 16_000


def noise(seed=0, seconds=1.0, level=0.3):
    samples = round(seconds * RATE)
    shape = np.random.default_rng(seed).uniform(0, 1, 8).repeat(-(-samples // 8))[:samples]
    return level * shape * np.random.default_rng(seed).uniform(-1, 1, samples)


def kinds(folder, waves, rates=None):
    surveys = {}
    for name, wave in waves.items():
        path = folder / f"{name}.wav"
        soundfile.write(path, wave, (rates or {}).get(name, RATE), subtype="FLOAT")
        surveys[str(path)] = survey(path)
    return {(f.path.rsplit("/", 1)[-1][:-4], f.kind) for f in file_findings(surveys)}


def test_different_clean_clips_are_not_mentioned(tmp_path):
    assert kinds(tmp_path, {f"{seed}": noise(seed) for seed in range(30)}) == set()


@pytest.mark.parametrize(
    ("wave", "kind"),
    [
        (np.zeros(RATE), "silent"),
        (np.clip(noise(level=20.0), -1, 1), "clipped"),
        (noise() + 0.2, "offset from 0"),
        (noise(seconds=0.02), "shorter than a frame"),
        (np.stack([noise(), -noise()], axis=1), "in opposite phase"),
        (np.sin(np.arange(RATE) * 0.1) * np.hanning(RATE), "resampled, it seems"),
    ],
)
def test_each_odd_clip_is_told(tmp_path, wave, kind):
    assert kinds(tmp_path, {"odd": wave, "other": noise(1)}) == {("odd", kind)}


def test_copies_at_another_level_are_nearly_identical(tmp_path):
    waves = {f"{seed}": noise(seed) for seed in range(5)}
    assert kinds(tmp_path, waves | {"copy": 0.4 * waves["3"]}) == {("copy", "nearly identical")}


def test_a_rate_of_few_files_is_rare(tmp_path):
    waves = {f"{seed}": noise(seed) for seed in range(25)}
    assert kinds(tmp_path, waves, {"7": 8000}) == {("7", "of a rare rate")}


def test_names_that_differ_by_case_are_told():
    assert case_variants(["Angry", "angry", "sad"]) == [("Angry", "angry")]
    corpus = Corpus("x", (), ("Angry", "angry", "sad"), False)
    (text,) = corpus_notices(corpus)
    assert text == "labels 'Angry', 'angry' differ by case only, and count as different"
