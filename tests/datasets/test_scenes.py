"""The generated corpus: classes are what they claim, calls repeat, and a linear model does not solve it."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from melpatch import registry
from melpatch.datasets import scenes, synthesis
from melpatch.errors import ConfigError, DataError

RATE = synthesis.SAMPLE_RATE
PAIRS = [
    (scenes._sweeps, "sweep_up", "sweep_down"),
    (scenes._notes, "notes_up", "notes_down"),
    (scenes._clicks, "clicks_faster", "clicks_slower"),
    (scenes._swells, "noise_swell", "noise_fade"),
    (scenes._tone_then_noise, "tone_noise", "noise_tone"),
]
LABELS = [label for _, *pair in PAIRS for label in pair]


def draws(sounds):
    return [sounds(np.random.default_rng(seed), 24_000) for seed in range(20)]


def runs(wave, pause=100):
    """The segments of sound with at least this many zeros between them, and their starts."""
    heard = np.flatnonzero(wave)
    cuts = np.flatnonzero(np.diff(heard) > pause) + 1
    return [(places[0], wave[places[0] : places[-1] + 1]) for places in np.split(heard, cuts)]


def pitch(wave):
    """The strongest frequency, in Hz."""
    return np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 1 << 16)).argmax() * RATE / (1 << 16)


def tonality(wave):
    """Share of the power that lies in the 1 % strongest of the frequencies."""
    power = np.sort(np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 2)
    return power[-len(power) // 100 :].sum() / power.sum()


def test_sweeps_glide_up():
    for wave in draws(scenes._sweeps):
        sweeps = [sweep for _, sweep in runs(wave)]
        assert 1 <= len(sweeps) <= 4
        for sweep in sweeps:
            found = [pitch(part) for part in np.array_split(sweep, 4)]
            assert found == sorted(found)
            assert 0.3 < np.log2(found[-1] / found[0]) < 2


def test_the_second_note_is_3_to_12_semitones_higher():
    for wave in draws(scenes._notes):
        eighth = len(wave) // 8
        assert 2.9 < 12 * np.log2(pitch(wave[-eighth:]) / pitch(wave[:eighth])) < 12.1


def test_clicks_accelerate():
    for wave in draws(scenes._clicks):
        gaps = np.diff([start for start, _ in runs(wave)])
        assert 7 <= len(gaps) <= 13
        assert np.all(np.diff(gaps) < 1)
        assert 2.9 < gaps[0] / gaps[-1] < 6.1


def test_bursts_of_noise_swell():
    for wave in draws(scenes._swells):
        bursts = [burst for _, burst in runs(wave)]
        assert 2 <= len(bursts) <= 5
        for burst in bursts:
            power = [np.mean(part**2) for part in np.array_split(burst, 3)]
            assert power[0] < power[1] < power[2]


def test_a_tone_comes_before_noise():
    for wave in draws(scenes._tone_then_noise):
        third = len(wave) // 3
        assert tonality(wave[:third]) > 0.99
        assert tonality(wave[-third:]) < 0.7


@pytest.mark.parametrize("pair", range(5))
def test_the_second_class_of_a_pair_is_the_first_one_backwards(pair):
    rng = np.random.default_rng(7)
    sound = PAIRS[pair][0](rng, int(2 * RATE * rng.uniform(0.5, 0.9)))
    sound = np.trim_zeros(sound) / sound.std()
    one, other = (
        np.trim_zeros(scenes._event(np.random.default_rng(7), 2 * pair + way, 2 * RATE))
        for way in (0, 1)
    )
    np.testing.assert_allclose(one, sound)
    np.testing.assert_array_equal(other, one[::-1])
    assert not np.allclose(one, other)


@given(st.integers(0, 2**40), st.integers(0, 10**6), st.floats(0.5, 3.0))
def test_every_scene_fits_16_bits(seed, number, seconds):
    wave = scenes.scene(seed, number, seconds)
    assert wave.shape == (round(seconds * RATE),)
    assert 0.099 < np.abs(wave).max() < 0.892  # -20 to -1 dB


def test_a_scene_depends_on_seed_and_number_alone():
    wave = scenes.scene(0, 3, 2.0)
    np.random.default_rng(5).random(100)
    np.testing.assert_array_equal(wave, scenes.scene(0, 3, 2.0))
    assert not np.allclose(wave, scenes.scene(1, 3, 2.0))
    assert not np.allclose(wave, scenes.scene(0, 13, 2.0))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("made") / "scenes"
    manifest = scenes.generate(root, clips=100, seconds=0.5, seed=3, unlabelled=7)
    assert manifest == root / "corpus.csv"
    return root


def test_the_corpus_has_every_class_in_every_split(corpus):
    entries = scenes.clips(corpus)
    expected = {
        (label, split): n
        for label in LABELS
        for split, n in (("train", 6), ("val", 1), ("test", 3))
    }
    assert Counter((entry.label, entry.split) for entry in entries) == expected | {
        ("", "pretrain"): 7
    }
    assert len({entry.path for entry in entries}) == 107
    assert (corpus / "corpus.csv").read_text().splitlines()[0] == "path,label,split"


def test_files_contain_the_scenes_of_their_rows(corpus):
    for number, entry in enumerate(scenes.clips(corpus)):
        info = soundfile.info(corpus / entry.path)
        assert (info.format, info.subtype, info.samplerate, info.channels) == (
            "FLAC",
            "PCM_16",
            RATE,
            1,
        )
        wave, _ = soundfile.read(corpus / entry.path)
        np.testing.assert_allclose(wave, scenes.scene(3, number, 0.5), atol=2**-15)
        assert entry.label in ("", LABELS[number % 10])


def test_a_complete_corpus_is_left_as_it_is(corpus, monkeypatch):
    monkeypatch.setattr(scenes, "scene", None)
    scenes.generate(corpus, clips=100, seconds=0.5, seed=3, unlabelled=7)


@pytest.mark.parametrize(
    "changed", [{"clips": 90}, {"seconds": 0.6}, {"seed": 4}, {"unlabelled": 8}]
)
def test_another_corpus_is_not_overwritten(corpus, changed):
    before = sorted(corpus.rglob("*"))
    with pytest.raises(DataError, match="name another folder"):
        scenes.generate(
            corpus, **{"clips": 100, "seconds": 0.5, "seed": 3, "unlabelled": 7} | changed
        )
    assert sorted(corpus.rglob("*")) == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("clips", -1),
        ("clips", 0),
        ("unlabelled", -1),
        ("seconds", 0.4),
        ("seconds", 61.0),
        ("seed", -1),
    ],
)
def test_numbers_out_of_range_are_rejected(tmp_path, field, value):
    with pytest.raises(ConfigError, match=field):
        scenes.generate(
            tmp_path / "x",
            **{"clips": 2, "seconds": 0.5, "seed": 0, "unlabelled": 0} | {field: value},
        )
    assert not (tmp_path / "x").exists()


def test_the_card_is_found_by_name(corpus):
    card = registry.find("datasets", "scenes")
    assert card.name == "scenes"
    assert card.labels == tuple(sorted(LABELS))
    assert {entry.split for entry in card.clips(corpus)} == set(card.splits)


MEL = 1127 * np.log1p(np.fft.rfftfreq(512, 1 / RATE) / 700)
EDGES = np.linspace(0, MEL[-1], 66)
BANK = np.clip(np.minimum(MEL - EDGES[:-2, None], EDGES[2:, None] - MEL) / EDGES[1], 0, None)


def floor_features(wave):
    """Means and deviations of a 64-bin log-mel spectrogram in four time segments."""
    frames = np.lib.stride_tricks.sliding_window_view(wave, 400)[::160] * np.hanning(400)
    log_mel = np.log(BANK @ (np.abs(np.fft.rfft(frames, 512)) ** 2).T + 1e-8)
    segments = np.array_split(log_mel, 4, axis=1)
    return np.concatenate(
        [part for segment in segments for part in (segment.mean(axis=1), segment.std(axis=1))]
    )


def test_a_linear_model_on_log_mel_statistics_is_far_from_solving_it():
    """Logistic regression, the floor of the other corpora, lies above chance (0.1) and well below what can be heard."""
    features = np.stack([floor_features(scenes.scene(0, number, 2.0)) for number in range(300)])
    labels = np.arange(300) % 10
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01)).fit(
        features[:200], labels[:200]
    )
    assert 0.2 < model.score(features[200:], labels[200:]) < 0.5


def test_a_long_scene_has_its_events_apart_and_louder_than_what_is_between():
    labels = ["sweep_up", "noise_fade", "clicks_slower", "sweep_up"]
    wave, stretches = scenes.long_scene(0, 3, 20.0, labels)
    again, _ = scenes.long_scene(0, 3, 20.0, labels)
    assert np.array_equal(wave, again)
    assert (len(wave), np.abs(wave).max() <= 1) == (20 * RATE, True)
    assert [stretch.label for stretch in stretches] == labels
    assert all(a.end <= b.start for a, b in pairwise(stretches))
    assert all(0.6 <= stretch.end - stretch.start <= 1.5 for stretch in stretches)
    inside = np.zeros(len(wave), bool)
    for stretch in stretches:
        inside[round(stretch.start * RATE) : round(stretch.end * RATE)] = True
    assert np.square(wave[inside]).mean() > 2 * np.square(wave[~inside]).mean()
    with pytest.raises(ConfigError, match=r"seconds = 7\.0; allowed: 8 or more"):
        scenes.long_scene(0, 3, 7.0, labels)
