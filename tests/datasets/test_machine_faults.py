"""A fault is what it claims, levels do not give it away, and machines of the test are unseen."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from scipy.stats import kruskal

from melpatch import registry
from melpatch.datasets import machine_faults
from melpatch.datasets.machine_faults import LABELS
from melpatch.datasets.synthesis import SAMPLE_RATE
from melpatch.errors import ConfigError

SMALL = {"clips": 12, "unlabelled": 2, "seconds": 0.5, "seed": 3}


def turning(number, seconds=4.0):
    """A machine of its own for each number, at its speed in one recording."""
    rng = np.random.default_rng(number)
    built = machine_faults.machine(0, number)
    return machine_faults.turning(rng, built, int(seconds * SAMPLE_RATE))


def orders(wave, now):
    """The power of the envelope by its order: per turn of the shaft, whatever its speed.

    Returns a function from an order to its power beside that of the orders around it.
    """
    # The band of the resonance that impulses excite.
    spectrum = np.fft.rfft(wave)
    hz = np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE)
    spectrum[np.abs(np.log2(np.maximum(hz, 1) / now.machine.ring[0])) > 0.4] = 0
    wave = np.fft.irfft(spectrum, len(wave))
    # The envelope is the power in windows of 2 ms, resampled to equal angles.
    envelope = np.convolve(wave**2, np.hanning(32), mode="same")
    angles = np.arange(now.turns[0], now.turns[-1], 1 / 128)
    envelope = np.log(np.interp(angles, now.turns, envelope) + 1e-3)
    power = np.abs(np.fft.rfft((envelope - envelope.mean()) * np.hanning(len(angles)))) ** 2
    order = np.fft.rfftfreq(len(angles), 1 / 128)

    def beside(wanted):
        near = np.abs(order - wanted)
        return power[near < 0.05].max() / np.median(power[(near > 0.1) & (near < 0.45)])

    return beside


@pytest.fixture(scope="module")
def mean_orders():
    """Return a function from a class and an order to how far it stands out, a mean logarithm."""
    machines = [turning(number) for number in range(8)]
    beside = {
        label: [
            orders(machine_faults.with_fault(np.random.default_rng(number), label, now), now)
            for number, now in enumerate(machines)
        ]
        for label in LABELS
    }

    def mean(label, order_of):
        values = [
            stands_out(order_of(now.machine))
            for stands_out, now in zip(beside[label], machines, strict=True)
        ]
        return np.mean(np.log10(values))

    return mean


def test_the_impulses_of_a_bearing_stand_out_at_its_order_and_in_no_other_class(mean_orders):
    means = {label: mean_orders(label, lambda built: built.bearing) for label in LABELS}
    others = [mean for label, mean in means.items() if label != "bearing"]
    assert means["bearing"] > max(others) + 0.5


def test_imbalance_modulates_at_the_rotation_rate(mean_orders):
    means = {label: mean_orders(label, lambda built: 1.0) for label in LABELS}
    others = [mean for label, mean in means.items() if label != "imbalance"]
    assert means["imbalance"] > max(others) + 0.3


def test_a_broken_tooth_stands_out_at_the_harmonics_of_the_rotation(mean_orders):
    for harmonic in (3.0, 4.0, 5.0):
        means = {label: mean_orders(label, lambda built, order=harmonic: order) for label in LABELS}
        others = [mean for label, mean in means.items() if label != "gear_tooth"]
        assert means["gear_tooth"] > max(others) + 1


def added(label, number, seconds=4.0):
    """What a fault adds to silence, and the machine that turns."""
    now = turning(number, seconds)
    silence = np.zeros(len(now.turns))
    return machine_faults._FAULTS[label](np.random.default_rng(number), now, silence), now


def onsets(wave, quiet=0.05):
    """The samples at which a sound begins that follows at least 2 ms of near silence."""
    loud = np.flatnonzero(np.abs(wave) > quiet * np.abs(wave).max())
    return loud[np.diff(loud, prepend=-1000) > 32]


def test_a_broken_tooth_sounds_once_per_turn_at_one_angle():
    for number in range(8):
        wave, now = added("gear_tooth", number)
        angles = now.turns[onsets(wave)]
        np.testing.assert_allclose(np.diff(angles), 1.0, atol=0.02)


def test_the_impulses_of_a_bearing_are_nearly_regular_in_angle():
    for number in range(8):
        wave, now = added("bearing", number)
        gaps = np.diff(now.turns[onsets(wave)]) * now.machine.bearing
        assert abs(np.median(gaps) - 1) < 0.01
        assert 3.1 <= now.machine.bearing <= 5.4


def test_cavitation_is_broadband_and_irregular():
    for number in range(4):
        wave, _ = added("cavitation", number, seconds=8.0)
        gaps = np.diff(onsets(wave))
        assert gaps.std() > 0.6 * gaps.mean()
        power = np.abs(np.fft.rfft(wave)) ** 2
        hz = np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE)
        octaves = [power[(hz > low) & (hz <= 2 * low)].mean() for low in (500, 1000, 2000, 4000)]
        assert max(octaves) < 10 * min(octaves)


def test_a_belt_squeals_near_its_frequency_in_short_stretches():
    for number in range(8):
        wave, now = added("belt_slip", number)
        assert 0.02 < np.mean(wave != 0) < 0.8
        hz = np.abs(np.fft.rfft(wave)).argmax() * SAMPLE_RATE / len(wave)
        assert 0.7 * now.machine.squeal < hz < 1.15 * now.machine.squeal


def test_speeds_differ_between_recordings_and_drift_within():
    built = machine_faults.machine(0, 0)
    starts = []
    drifts = []
    for seed in range(30):
        now = machine_faults.turning(np.random.default_rng(seed), built, 4 * SAMPLE_RATE)
        rate = np.diff(now.turns) * SAMPLE_RATE / built.rate
        starts.append(rate.mean())
        drifts.append(rate.max() / rate.min())
    assert 0.75 < min(starts) < 0.9
    assert 1.1 < max(starts) < 1.27
    assert 1.03 < max(drifts) < 1.13


def test_machines_differ():
    built = [machine_faults.machine(0, number) for number in range(40)]
    assert len({own.rate for own in built}) == 40
    assert len({own.teeth for own in built}) > 10
    assert all(10 <= own.rate <= 23 for own in built)
    again = machine_faults.machine(0, 7)
    assert (again.rate, again.squeal) == (built[7].rate, built[7].squeal)
    assert machine_faults.machine(1, 7).rate != again.rate


@pytest.fixture(scope="module")
def waves():
    """Recordings of ten machines."""
    return [machine_faults.recording(0, number, 1.0) for number in range(120)]


def test_recordings_fit_16_bits_and_depend_on_seed_and_number_alone(waves):
    assert all(wave.shape == (SAMPLE_RATE,) for wave in waves)
    # Nothing is clipped.
    assert max(np.abs(wave).max() for wave in waves) < 0.99
    np.random.default_rng(5).random(100)
    np.testing.assert_array_equal(waves[3], machine_faults.recording(0, 3, 1.0))
    assert not np.allclose(waves[3], machine_faults.recording(1, 3, 1.0))


def test_levels_do_not_give_the_class_away(waves):
    levels = np.array([20 * np.log10(wave.std()) for wave in waves])
    assert -40.1 < levels.min() < -38
    assert -26 < levels.max() < -23.9
    assert kruskal(*(levels[place::6] for place in range(6))).pvalue > 0.02


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        machine_faults.generate(tmp_path / name, **SMALL | {"seed": seed})
    files = {
        name: [path.read_bytes() for path in sorted((tmp_path / name).rglob("*.*"))]
        for name in ("one", "two", "other")
    }
    assert len(files["one"]) == 16
    assert files["one"] == files["two"]
    assert {*files["one"]} & {*files["other"]} == {(tmp_path / "one/corpus.csv").read_bytes()}


@pytest.mark.parametrize("clips", [120, 125])
def test_machines_of_the_test_are_unseen_and_classes_are_balanced(clips):
    entries = machine_faults._entries(clips, 30)
    splits = defaultdict(set)
    for entry in entries:
        splits[entry.group].add(entry.split)
    assert all(len(own) == 1 for own in splits.values())
    labels = Counter((entry.label, entry.split) for entry in entries[:120])
    assert {labels[label, "train"] for label in LABELS} == {12}
    assert {labels[label, "val"] for label in LABELS} == {2}
    assert {labels[label, "test"] for label in LABELS} == {6}
    assert {entry.split for entry in entries[clips:]} == {"pretrain"}


def test_files_are_the_recordings_of_their_machines(tmp_path, monkeypatch):
    numbers = []

    def noted(seed, number, seconds):
        numbers.append(number)
        return np.zeros(8)

    monkeypatch.setattr(machine_faults, "recording", noted)
    machine_faults.generate(tmp_path / "made", **SMALL | {"clips": 15})
    entries = machine_faults.clips(tmp_path / "made")
    groups = [f"machine{number // 12:04d}" for number in numbers]
    assert [entry.group for entry in entries] == groups
    assert numbers == [*range(15), 24, 25]


@pytest.mark.parametrize(
    ("field", "value"), [("clips", -1), ("seconds", 0.4), ("seconds", 61.0), ("seed", -1)]
)
def test_numbers_out_of_range_are_rejected(tmp_path, field, value):
    with pytest.raises(ConfigError, match=field):
        machine_faults.generate(tmp_path / "x", **SMALL | {field: value})
    assert not (tmp_path / "x").exists()


def test_the_card_is_found_by_name():
    card = registry.find("datasets", "machine_faults")
    assert card.labels == tuple(sorted(LABELS))
    assert card.metric == "accuracy"
