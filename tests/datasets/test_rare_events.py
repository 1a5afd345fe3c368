"""Rare events: kinds are what they claim, and neither level nor mean spectrum gives them away."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import kruskal
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from melpatch import registry
from melpatch.datasets import rare_events
from melpatch.datasets.synthesis import SAMPLE_RATE, loudest
from melpatch.errors import ConfigError

SMALL = {"clips": 10, "unlabelled": 2, "seconds": 4.0, "seed": 3}


def draws(kind, seconds=1.0):
    """Twenty events of a rare kind."""
    samples = int(seconds * SAMPLE_RATE)
    return [rare_events._RARE[kind](np.random.default_rng(seed), samples) for seed in range(20)]


def segments(wave, pause=100):
    """The parts of an event with at least this many zeros between them, and their starts."""
    places = np.flatnonzero(wave)
    cuts = np.flatnonzero(np.diff(places) > pause) + 1
    return [(part[0], wave[part[0] : part[-1] + 1]) for part in np.split(places, cuts)]


def pitch(wave):
    """The strongest frequency, in Hz."""
    power = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 1 << 16))
    return power.argmax() * SAMPLE_RATE / (1 << 16)


def fundamental(frame):
    """The lowest strong frequency, in Hz."""
    power = np.abs(np.fft.rfft(frame * np.hanning(len(frame)), 1 << 14))
    return np.flatnonzero(power > 0.25 * power.max())[0] * SAMPLE_RATE / (1 << 14)


def test_an_alarm_alternates_between_two_notes():
    for wave in draws("alarm"):
        edge = np.abs(wave) < 1e-4
        count = next(
            n for n in range(16, 6, -2) if edge[[len(wave) * k // n for k in range(n)]].all()
        )
        notes = [fundamental(part) for part in np.array_split(wave, count)]
        low, high = np.median(notes[::2]), np.median(notes[1::2])
        assert 2.5 < 12 * np.log2(high / low) < 12.5
        np.testing.assert_allclose(notes[::2], low, rtol=0.05)
        np.testing.assert_allclose(notes[1::2], high, rtol=0.05)


def test_a_bounce_becomes_faster_and_softer():
    for wave in draws("bounce"):
        knocks = segments(wave)
        gaps = np.diff([start for start, _ in knocks])
        assert 5 <= len(knocks) <= 9
        np.testing.assert_allclose(gaps[1:] / gaps[:-1], gaps[1] / gaps[0], atol=0.03)
        assert 0.6 < gaps[1] / gaps[0] < 0.85
        peaks = [np.abs(knock).max() for _, knock in knocks]
        assert peaks[-1] < 0.6 * peaks[0]


def test_a_double_chirp_is_two_equal_quick_glides_upwards():
    for wave in draws("double_chirp"):
        (_, first), (start, second) = segments(wave)
        assert start + len(second) < 0.35 * SAMPLE_RATE
        np.testing.assert_allclose(first, second)
        begin, end = first[: len(first) // 3], first[-len(first) // 3 :]
        assert np.log2(fundamental(end) / fundamental(begin)) > 0.25


def test_glass_cracks_and_rings_with_inharmonic_partials_of_which_high_ones_are_shorter():
    hz = np.fft.rfftfreq(4000, 1 / SAMPLE_RATE)
    falls = []
    for wave in draws("glass"):
        assert loudest(wave[:800], 0.01) > 5 * loudest(wave[-4000:], 0.01)
        early, late = (
            np.abs(np.fft.rfft(part * np.hanning(4000))) ** 2
            for part in (wave[400:4400], wave[6000:10_000])
        )
        falls.append((hz @ late) / late.sum() < (hz @ early) / early.sum())
        ratios = np.flatnonzero(early > 0.02 * early.max()) / early.argmax()
        assert np.abs(ratios - ratios.round()).max() > 0.05
    assert np.mean(falls) > 0.8


def test_a_siren_glides_up_and_down():
    for wave in draws("siren"):
        frames = np.lib.stride_tricks.sliding_window_view(wave, 800)[::200]
        octaves = np.log2([fundamental(frame) for frame in frames])
        middle = (octaves.max() + octaves.min()) / 2
        assert 0.35 < octaves.max() - octaves.min() < 1.7
        crossings = np.count_nonzero(np.diff(octaves > middle))
        assert 5 <= crossings <= 14


def test_ten_scenes_have_every_kind_once_and_six_have_none():
    for block in range(20):
        labels = [rare_events.labels_of(10 * block + place) for place in range(10)]
        assert Counter(kind for kinds in labels for kind in kinds) == dict.fromkeys(
            rare_events.KINDS, 1
        )
        assert sorted(map(len, labels)) == [0] * 6 + [1] * 3 + [2]
    pairs = {rare_events.labels_of(10 * block) for block in range(10)}
    assert len(pairs) == 10


@pytest.mark.parametrize("rare", [(), ("alarm",), ("glass", "siren")])
def test_a_scene_has_its_rare_kinds_and_as_many_events_as_any_other(rare):
    counts = Counter()
    for seed in range(50):
        names = rare_events._order(np.random.default_rng(seed), rare, 5)
        assert {*names} - {""} == {*rare}
        assert len(names) == 5
        counts.update(names.index(name) for name in rare)
    assert not rare or {*counts} == {0, 1, 2, 3, 4}


def test_events_are_5_to_15_decibels_above_the_background():
    levels = []
    for seed in range(25):
        wave = rare_events._events(np.random.default_rng(seed), ("alarm",), 4 * SAMPLE_RATE)
        levels += [20 * np.log10(loudest(part)) for part in np.array_split(wave, 2)]
    assert 5 < min(levels) < 8
    assert 12 < max(levels) < 15.5


@pytest.fixture(scope="module")
def waves():
    """Scenes of 4 s, of which four of ten have rare events."""
    return [rare_events.scene(0, number, 4.0) for number in range(120)]


def test_scenes_fit_16_bits_and_depend_on_seed_and_number_alone(waves):
    assert all(wave.shape == (4 * SAMPLE_RATE,) for wave in waves)
    # Nothing is clipped, and the background is well above the last bit.
    assert max(np.abs(wave).max() for wave in waves) < 0.99
    assert min(wave.std() for wave in waves) > 2**-10
    np.random.default_rng(5).random(100)
    np.testing.assert_array_equal(waves[3], rare_events.scene(0, 3, 4.0))
    assert not np.allclose(waves[3], rare_events.scene(1, 3, 4.0))


def has_rare(count):
    return np.array([bool(rare_events.labels_of(number)) for number in range(count)])


def test_levels_do_not_tell_whether_there_are_rare_events(waves):
    rare = has_rare(len(waves))
    for level in (np.std, lambda wave: np.abs(wave).max(), lambda wave: np.median(np.abs(wave))):
        levels = np.array([level(wave) for wave in waves])
        assert kruskal(levels[rare], levels[~rare]).pvalue > 0.02


MEL = 1127 * np.log1p(np.fft.rfftfreq(512, 1 / SAMPLE_RATE) / 700)
EDGES = np.linspace(0, MEL[-1], 34)
BANK = np.clip(np.minimum(MEL - EDGES[:-2, None], EDGES[2:, None] - MEL) / EDGES[1], 0, None)


def mean_spectrum(wave):
    """Mean of a log-mel spectrogram of 32 bins over time."""
    frames = np.lib.stride_tricks.sliding_window_view(wave, 400)[::400] * np.hanning(400)
    return np.log(BANK @ (np.abs(np.fft.rfft(frames, 512)) ** 2).T + 1e-10).mean(axis=1)


def test_a_linear_model_on_mean_spectra_does_not_find_them(waves):
    features = np.stack([mean_spectrum(wave) for wave in waves])
    rare = has_rare(len(waves))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(features[:80], rare[:80])
    precision = average_precision_score(rare[80:], model.decision_function(features[80:]))
    assert rare[80:].mean() == 0.4
    assert precision < 0.7


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        rare_events.generate(tmp_path / name, **SMALL | {"seed": seed})
    files = {
        name: [path.read_bytes() for path in sorted((tmp_path / name).rglob("*.*"))]
        for name in ("one", "two", "other")
    }
    assert len(files["one"]) == 14
    assert files["one"] == files["two"]
    assert not {*files["one"]} & {*files["other"]} - {(tmp_path / "one/corpus.csv").read_bytes()}


def test_scenes_without_rare_events_are_background(tmp_path):
    rare_events.generate(tmp_path / "made", **SMALL)
    entries = rare_events.clips(tmp_path / "made")
    for number, entry in enumerate(entries[:10]):
        assert entry.label == (";".join(rare_events.labels_of(number)) or "background")
    assert Counter(entry.label for entry in entries)["background"] == 6
    assert [(entry.label, entry.split) for entry in entries[10:]] == [("", "pretrain")] * 2


@pytest.mark.parametrize(
    ("field", "value"), [("clips", -1), ("seconds", 3.9), ("seconds", 121.0), ("seed", -1)]
)
def test_numbers_out_of_range_are_rejected(tmp_path, field, value):
    with pytest.raises(ConfigError, match=field):
        rare_events.generate(tmp_path / "x", **SMALL | {field: value})
    assert not (tmp_path / "x").exists()


def test_the_card_is_found_by_name():
    card = registry.find("datasets", "rare_events")
    assert card.labels == tuple(sorted([*rare_events.KINDS, "background"]))
    assert card.metric == "mAP"
