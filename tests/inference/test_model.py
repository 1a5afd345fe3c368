"""What users hold: the same answer for a file and its samples, in windows with the right times, or a clear refusal."""

import os
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import soxr
import torch
from hypothesis import given
from hypothesis import settings as of_hypothesis
from hypothesis import strategies as st
from journeys.three_sounds import LABELS, settings, wave, write_run, write_sound
from poolings import POOLINGS

import melpatch
from melpatch.data.clip import Batch
from melpatch.errors import AudioError, CheckpointError, ConfigError
from melpatch.inference.model import Model
from melpatch.inference.network import Network
from melpatch.nn.pooling import DEFAULT_POOLING, pool
from melpatch.objectives.ssast import SSAST
from melpatch.training.config import build
from melpatch.training.start import fitted

RATE = 16000
COLUMN = 0.16


def model_of(labels=LABELS, **changes):
    config = fitted(settings(labels, **changes))
    return Model(config, build(config), "cpu")


MODEL = model_of()
PRETRAINED = model_of(())


def samples(seconds, seed=0, label="noise"):
    return wave(label, seconds, RATE, seed).astype(np.float32)


def batch_of(*waves):
    lengths = torch.tensor([len(one) for one in waves])
    padded = torch.zeros(len(waves), int(lengths.max()))
    for row, one in zip(padded, waves, strict=True):
        row[: len(one)] = torch.from_numpy(one)
    return Batch(padded, lengths, torch.arange(len(waves)))


def numbers(prediction):
    return np.array(list(prediction.probabilities.values()))


def windows(sound, seconds, hop):
    """The slow, obvious windows: (first sample, samples), until one reaches the end."""
    found, number = [], 0
    while not found or found[-1][0] + len(found[-1][1]) < len(sound):
        start = round(number * hop * RATE)
        if start >= len(sound):
            break
        found.append((start, sound[start : start + round(seconds * RATE)]))
        number += 1
    return found


# --- a file and its samples ---


@pytest.mark.parametrize(("rate", "tolerance"), [(16000, 1e-6), (22050, 1e-3)])
def test_a_file_gives_what_its_samples_give(tmp_path, rate, tolerance):
    path = write_sound(tmp_path / "a.wav", "high", 2.3, rate)
    own, _ = soundfile.read(path, dtype="float32")
    for hop in (None, 0.3):
        from_file, from_samples = MODEL.predict(path, hop=hop), MODEL.predict(own, rate, hop=hop)
        times = [[(one.start, one.end) for one in found] for found in (from_file, from_samples)]
        np.testing.assert_allclose(*times, atol=1e-4)
        for one, other in zip(from_file, from_samples, strict=True):
            np.testing.assert_allclose(numbers(one), numbers(other), atol=tolerance)
    np.testing.assert_allclose(MODEL.embed(str(path)), MODEL.embed(own, rate), atol=30 * tolerance)
    for one, other in zip(MODEL.embed(path, hop=0.2), MODEL.embed(own, rate, hop=0.2), strict=True):
        np.testing.assert_allclose(one, other, atol=30 * tolerance)


def test_samples_of_another_rate_are_resampled():
    own = wave("high", 1.0, 44100).astype(np.float32)
    expected = MODEL.embed(soxr.resample(own, 44100, RATE, quality="HQ"), RATE)
    np.testing.assert_array_equal(MODEL.embed(own, 44100), expected)
    assert np.abs(MODEL.embed(own, RATE) - expected).max() > 0.1


def test_doubles_and_tensors_are_samples_too():
    sound = samples(0.7)
    for same in (
        sound.astype(np.float64),
        torch.from_numpy(sound),
        torch.from_numpy(sound).double().requires_grad_(),
    ):
        np.testing.assert_array_equal(MODEL.embed(same, RATE), MODEL.embed(sound, RATE))


@pytest.mark.parametrize(
    ("audio", "rate", "message"),
    [
        (np.zeros(800, np.float32), None, "samples were given without sample_rate"),
        (np.zeros(800, np.float32), 0, "sample_rate = 0; allowed"),
        (np.zeros((2, 3), np.float32), RATE, r"shape \(2, 3\).*either axis may be the channels"),
        (np.zeros(800, np.int64), RATE, "type int64: .*floats in .*int16 or int32"),
        (np.zeros(0, np.float32), RATE, r"shape \(0,\).*no sample"),
        (np.full(800, np.nan, np.float32), RATE, "finite"),
        (torch.zeros(1, 1, 800), RATE, r"shape \(1, 1, 800\).*one recording at a time"),
    ],
)
@pytest.mark.parametrize("use", ["embed", "predict", "frames"])
def test_what_is_no_sound_is_refused(audio, rate, message, use):
    with pytest.raises(ConfigError, match=message):
        MODEL.embed(audio, rate, hop=0.5) if use == "frames" else getattr(MODEL, use)(audio, rate)


def test_a_file_that_is_no_sound_is_refused(tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"RIFF, but no more")
    for path in (tmp_path / "bad.wav", tmp_path / "none.wav"):
        with pytest.raises(AudioError, match=path.name):
            MODEL.predict(path)


def test_a_recording_that_resampling_leaves_nothing_of_is_refused(tmp_path):
    soundfile.write(tmp_path / "click.wav", np.ones(1), 44100)
    for audio, rate in ((tmp_path / "click.wav", None), (np.ones(1, np.float32), 44100)):
        with pytest.raises(AudioError, match="shorter than one sample at 16000 Hz"):
            MODEL.predict(audio, rate)


def test_a_single_sample_is_enough():
    assert np.isfinite(MODEL.embed(np.ones(1, np.float32), RATE)).all()
    assert len(MODEL.embed(np.ones(1, np.float32), RATE, hop=0.2).vectors) == 1


# --- predictions ---


@given(st.floats(0.01, 3.5), st.floats(0.11, 1.7))
def test_predictions_are_those_of_the_windows(seconds, hop):
    sound = samples(seconds)
    expected = windows(sound, MODEL.seconds, hop)
    found = MODEL.predict(sound, RATE, hop=hop)
    assert [one.start for one in found] == [start / RATE for start, _ in expected]
    assert [one.end for one in found] == pytest.approx(
        [(start + len(one)) / RATE for start, one in expected]
    )
    alone = MODEL.predict_batch(batch_of(expected[-1][1]))[0].numpy()
    np.testing.assert_allclose(numbers(found[-1]), alone, atol=1e-6)


def test_one_prediction_is_the_mean_over_windows_weighted_by_their_length():
    sound = samples(2.5)
    parts = [MODEL.predict_batch(batch_of(one))[0].numpy() for _, one in windows(sound, 1.0, 1.0)]
    (found,) = MODEL.predict(sound, RATE)
    np.testing.assert_allclose(
        numbers(found), (parts[0] + parts[1] + 0.5 * parts[2]) / 2.5, atol=1e-6
    )
    assert (found.start, found.end) == (0.0, 2.5)
    assert tuple(found.probabilities) == LABELS
    assert sum(found.probabilities.values()) == pytest.approx(1.0)
    assert found.label == LABELS[int(numbers(found).argmax())]


def test_probabilities_of_several_labels_stand_for_themselves():
    found = numbers(model_of(multi_label=True).predict(samples(1.0), RATE)[0])
    assert ((found > 0) & (found < 1)).all()
    assert found.sum() != pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("hop", [0.0, -1.0, float("nan")])
def test_a_hop_that_leads_nowhere_is_refused(tmp_path, hop):
    path = write_sound(tmp_path / "a.wav")
    for audio, rate in ((path, None), (samples(1.0), RATE)):
        with pytest.raises(ConfigError, match="hop"):
            MODEL.predict(audio, rate, hop=hop)
        with pytest.raises(ConfigError, match="hop"):
            MODEL.embed(audio, rate, hop=hop)


def test_a_pretrained_run_predicts_nothing_and_says_what_to_do():
    with pytest.raises(ConfigError, match="melpatch finetune --init"):
        PRETRAINED.predict(samples(1.0), RATE)


def test_padding_changes_no_prediction_and_no_embedding():
    waves = [samples(seconds, seed) for seed, seconds in enumerate((0.04, 0.31, 0.77, 1.0))]
    together = batch_of(*waves)
    together.wave += 100 * (
        torch.arange(together.wave.shape[1]) >= together.lengths[:, None]
    )  # what is there is not heard
    for pooling in ("mean", "cls", "frequency"):
        alone = torch.cat([MODEL.embed_batch(batch_of(one), pooling) for one in waves])
        torch.testing.assert_close(
            MODEL.embed_batch(together, pooling), alone, atol=1e-5, rtol=1e-5
        )
    alone = torch.cat([MODEL.predict_batch(batch_of(one)) for one in waves])
    torch.testing.assert_close(MODEL.predict_batch(together), alone, atol=1e-6, rtol=1e-5)


# --- embeddings ---


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_long_recording_is_pooled_as_if_its_columns_had_been_there_at_once(pooling):
    sound = samples(2.5)
    parts = []
    cls = []
    with torch.inference_mode():
        for _, one in windows(sound, 1.0, 1.0):
            encoded = MODEL.objective.encoder(*MODEL.objective.features(batch_of(one)))
            parts.append(encoded.patches.unflatten(1, (2, -1)))
            cls.append(encoded.cls.mean(dim=1, keepdim=True).expand(-1, parts[-1].shape[2], -1))
    columns = torch.cat(parts, dim=2).flatten(1, 2)
    # The class tokens of each window count by its columns.
    expected = pool(columns, torch.cat(cls, dim=1), None, 2, pooling)[0].numpy()
    found = MODEL.embed(sound, RATE, pooling=pooling)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_vector_may_hold_the_statistics_of_the_spectrogram():
    sound = samples(2.5)
    found = MODEL.embed(sound, RATE, pooling="rows+mean+std+input").reshape(2, 2, -1)
    tokens = MODEL.embed(sound, RATE, pooling="rows+mean+std").reshape(2, 2, -1)
    dim = tokens.shape[2]
    np.testing.assert_allclose(found[..., :dim], tokens, atol=1e-6)
    grid = MODEL.objective.encoder.grid
    parts = [
        grid.statistics(MODEL.objective.features(batch_of(one)).spectrogram)[0]
        for _, one in windows(sound, 1.0, 1.0)
    ]
    columns = torch.cat([part.unflatten(0, (2, -1)) for part in parts], dim=1)
    expected = torch.stack([columns.mean(dim=1), columns.std(dim=1, correction=0)])
    np.testing.assert_allclose(found[..., dim:], expected, atol=2e-6)


def test_pooling_and_layer_choose_what_is_averaged():
    sound = samples(1.0)
    encoder = MODEL.objective.encoder
    with torch.inference_mode():
        encoded = encoder(*MODEL.objective.features(batch_of(sound)), layers=True)
    for pooling, size in (("mean", 16), ("cls", 16), ("frequency", 32)):
        final = pool(encoded.patches, encoded.cls, None, 2, pooling)[0].numpy()
        assert final.shape == (size,)
        np.testing.assert_allclose(MODEL.embed(sound, RATE, pooling=pooling), final, atol=1e-6)
        for layer in (0, 1, -1, -2):
            tokens = encoded.layers[layer]
            expected = pool(tokens[:, 1:], tokens[:, :1], None, 2, pooling)[0].numpy()
            found = MODEL.embed(sound, RATE, pooling=pooling, layer=layer)
            np.testing.assert_allclose(found, expected, atol=1e-6)
            assert np.abs(found - final).max() > 1e-3
            by_name = MODEL.embed(sound, RATE, pooling=f"{pooling}+layers={layer % 2 + 1}")
            np.testing.assert_array_equal(by_name, found)


@pytest.mark.parametrize("layer", [2, -3])
def test_a_layer_that_is_not_there_is_refused(layer):
    for hop in (None, 0.5):
        with pytest.raises(ConfigError, match=f"layer = {layer}; allowed: -2 to 1"):
            MODEL.embed(samples(1.0), RATE, layer=layer, hop=hop)


def test_the_default_pooling_is_the_classifiers_own():
    sound = samples(1.0)
    assert model_of(pooling="cls").embed(sound, RATE).shape == (16,)
    assert model_of(pooling="frequency").embed(sound, RATE).shape == (32,)
    assert np.array_equal(
        PRETRAINED.embed(sound, RATE), PRETRAINED.embed(sound, RATE, pooling=DEFAULT_POOLING)
    )


def test_frames_of_a_classifier_whose_pooling_has_none_are_means():
    sound = samples(1.0)
    for pooling in ("cls", "max"):
        model = model_of(pooling=pooling)
        found, expected = (
            model.embed(sound, RATE, hop=0.5),
            model.embed(sound, RATE, hop=0.5, pooling="mean"),
        )
        assert np.array_equal(found.vectors, expected.vectors)
    assert model_of(pooling="frequency").embed(sound, RATE, hop=0.5).vectors.shape[1] == 32


def test_a_class_token_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="no class token"):
        model_of(cls_tokens=0).embed(samples(1.0), RATE, pooling="cls")


# --- frames ---


@given(
    st.floats(0.01, 4.5),
    st.floats(COLUMN, 1.3),
    st.floats(0.4, 1.3),
    st.sampled_from([None, (16, 10)]),
)
def test_frames_cover_the_recording_without_gap_or_overlap(seconds, hop, window, stride):
    model = model_of(seconds=window, stride=stride)
    sound = samples(seconds)
    found = model.embed(sound, RATE, hop=hop)
    assert found.start[0] == 0.0
    assert found.end[-1] == pytest.approx(len(sound) / RATE)
    assert (found.start < found.end).all()
    np.testing.assert_array_equal(found.start[1:], found.end[:-1])
    np.testing.assert_allclose(found.start, np.arange(len(found.start)) * hop)
    assert found.vectors.shape == (len(found.start), 32)
    assert np.isfinite(found.vectors).all()


@pytest.mark.parametrize(("pooling", "size"), [("mean", 16), ("frequency", 32)])
def test_a_frame_of_one_column_is_that_column(pooling, size):
    sound = samples(1.0)
    with torch.inference_mode():
        tokens = (
            MODEL.objective.encoder(*MODEL.objective.features(batch_of(sound))).patches[0].numpy()
        )
    by_column = tokens.reshape(2, 7, 16).transpose(1, 0, 2)
    expected = by_column.mean(axis=1) if pooling == "mean" else by_column.reshape(7, 32)
    found = MODEL.embed(sound, RATE, pooling=pooling, hop=COLUMN)
    assert found.vectors.shape == (7, size)
    np.testing.assert_allclose(found.vectors, expected, atol=1e-6)


def test_frames_average_the_columns_of_all_windows_that_hear_them():
    sound, hop = samples(2.3), 0.35
    heard = [[] for _ in range(7)]
    for start, one in windows(sound, 1.0, 0.5):
        with torch.inference_mode():
            tokens = (
                MODEL.objective.encoder(*MODEL.objective.features(batch_of(one))).patches[0].numpy()
            )
        by_column = tokens.reshape(2, -1, 16).transpose(1, 0, 2).reshape(-1, 32)
        for number, vector in enumerate(by_column):
            middle = start / RATE + (number + 0.5) * COLUMN
            heard[int(min(middle, (start + len(one)) / RATE - 1e-6) / hop)].append(vector)
    found = MODEL.embed(sound, RATE, hop=hop)
    np.testing.assert_allclose(
        found.vectors, [np.mean(vectors, axis=0) for vectors in heard], atol=1e-5
    )


def test_frames_take_a_layer():
    sound = samples(1.0)
    means = MODEL.embed(sound, RATE, layer=0, hop=1.0).vectors[0]
    np.testing.assert_allclose(means, MODEL.embed(sound, RATE, layer=0), atol=1e-5)


def test_published_padding_leaves_no_frame_behind_the_sound():
    config = settings()
    config = replace(
        config, front_end=replace(config.front_end, padding="legacy", target_frames=98)
    )
    found = Model(config, build(config), "cpu").embed(samples(0.5), RATE, hop=COLUMN)
    assert found.end[-1] == 0.5
    assert len(found.vectors) == 4


@pytest.mark.parametrize(
    ("hop", "pooling", "message"),
    [
        (0.15, None, "hop = 0.15; allowed: 0.16 s or more"),
        (1.0, "cls", "pooling = 'cls'; allowed: mean or rows, with or without input and layers"),
        (1.0, "mean+segments=2", "pooling"),
        (1.0, "max", "pooling = 'max'; allowed: mean or rows"),
    ],
)
def test_frames_that_no_token_stands_for_are_refused(hop, pooling, message):
    with pytest.raises(ConfigError, match=message):
        MODEL.embed(samples(1.0), RATE, hop=hop, pooling=pooling)


# --- length ---


def test_ten_minutes_go_through_in_windows_and_little_memory(tmp_path, monkeypatch):
    model = model_of(seconds=10.0)
    path = tmp_path / "dawn.wav"
    soundfile.write(path, np.tile(wave("high", 10.0, 8000), 60), 8000)
    shapes = set()
    forward = model.objective.front_end.forward
    monkeypatch.setattr(
        model.objective.front_end,
        "forward",
        lambda w, n: (shapes.add(tuple(w.shape)), forward(w, n))[1],
    )
    whole = 600 * RATE * 4  # bytes of the samples
    tracemalloc.start()
    try:
        found = model.predict(path, hop=10.0)
        model.embed(path)
        frames = model.embed(path, hop=5.0)
        assert tracemalloc.get_traced_memory()[1] < whole / 3
    finally:
        tracemalloc.stop()
    assert shapes == {(1, 10 * RATE)}
    assert [(one.start, one.end) for one in found] == [
        (10.0 * n, 10.0 * n + 10.0) for n in range(60)
    ]
    assert len(frames.vectors) == 120
    assert frames.end[-1] == 600.0


def test_windows_are_as_long_as_what_a_method_of_short_views_was_given(monkeypatch):
    monkeypatch.setattr(
        SSAST, "input_seconds", classmethod(lambda _, config, seconds: config.mask_ratio * seconds)
    )
    model = model_of((), positions="learned", seconds=2.0)
    assert (model.seconds, model.config.encoder.columns) == (1.5, 10)
    long = batch_of(samples(2.0))
    with pytest.raises(ConfigError, match="columns = 13"):
        model.embed_batch(long, "mean")
    sound = samples(3.0)
    whole = model.embed(sound, RATE, pooling="mean")
    halves = [
        model.embed_batch(batch_of(part), "mean")[0] for part in (sound[:24000], sound[24000:])
    ]
    np.testing.assert_allclose(whole, sum(halves).numpy() / 2, rtol=1e-5)


def test_learned_positions_take_shorter_and_longer_recordings():
    """Shorter ones by the first columns of the table, longer ones in windows."""
    model = model_of(positions="learned")
    assert model.config.encoder.columns == 7
    for seconds in (0.02, 0.5, 1.0, 1.7, 3.01):
        sound = samples(seconds)
        assert model.predict(sound, RATE)[0].end == pytest.approx(len(sound) / RATE)
        assert np.isfinite(model.embed(sound, RATE)).all()
    with torch.inference_mode():
        short = model.objective.encoder.positions(3).view(2, 3, 16)
        table = model.objective.encoder.positions(7).view(2, 7, 16)
    torch.testing.assert_close(short, table[:, :3])


# --- many recordings ---


@given(
    seconds=st.lists(st.floats(0.02, 3.2), min_size=1, max_size=6),
    batch_size=st.integers(1, 7),
    hop=st.none() | st.floats(COLUMN, 1.5),
    stride=st.sampled_from([None, (16, 10)]),
)
@of_hypothesis(max_examples=10)
def test_many_at_a_time_are_as_each_alone(sounds, seconds, batch_size, hop, stride):
    model = model_of(stride=stride)
    files = [sounds(one) for one in seconds]
    found = [*model.embed_many(files, hop=hop, batch_size=batch_size)]
    assert [path for path, _ in found] == files
    for path, one in found:
        alone = model.embed(path) if hop is None else model.embed(path, hop=hop)
        for part, other in zip(one, alone, strict=True):
            np.testing.assert_allclose(part, other, atol=2e-5)
    found = [*model.predict_many(files, hop=hop, batch_size=batch_size)]
    for path, predictions in found:
        alone = model.predict(path, hop=hop)
        assert [one[:2] for one in predictions] == [one[:2] for one in alone]
        for one, other in zip(predictions, alone, strict=True):
            np.testing.assert_allclose(numbers(one), numbers(other), atol=1e-6)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """A recording of so many seconds."""
    folder = tmp_path_factory.mktemp("sounds")
    return lambda seconds: write_sound(
        folder / f"{seconds}.wav", "high", seconds, RATE, seed=int(seconds * 100)
    )


def test_positions_that_stretch_to_the_batch_hear_no_longer_neighbour(sounds):
    model = model_of(positions="stretched")
    files = [sounds(one) for one in (0.4, 1.0, 0.7, 0.4, 2.3)]
    for path, one in model.embed_many(files, batch_size=4):
        np.testing.assert_allclose(one, model.embed(path), atol=1e-5)


def test_files_that_cannot_be_read_are_an_error_or_named(sounds, tmp_path):
    files = [sounds(0.4), tmp_path / "none.wav", sounds(0.7)]
    with pytest.raises(AudioError, match=r"none\.wav: does not exist"):
        [*MODEL.embed_many(files)]
    rejected = []
    found = [path for path, _ in MODEL.predict_many(files, rejected=rejected, workers=1)]
    assert found == [files[0], files[2]]
    assert [(one.path, one.reason) for one in rejected] == [(str(files[1]), "does not exist")]
    assert [*MODEL.embed_many([])] == []


def test_processes_decode_beside_a_gpu_only(monkeypatch):
    held = Model(MODEL.config, MODEL.objective, "cpu")
    assert held.default_workers == 0
    monkeypatch.setattr(Network, "device", torch.device("cuda"))
    assert held.default_workers == min(8, len(os.sched_getaffinity(0)))


def test_recordings_of_any_kind_and_rate_share_batches(tmp_path):
    path = write_sound(tmp_path / "a.wav", "high", 0.7, RATE)
    own, _ = soundfile.read(path, dtype="float32")
    recordings = [samples(2.3), path, torch.from_numpy(own), samples(0.05)]
    for hop in (None, 0.2):
        vectors = [*MODEL.embed_each(recordings, RATE, hop=hop, batch_size=3)]
        expected = [MODEL.embed(recording, RATE, hop=hop) for recording in recordings]
        for one, other in zip(vectors, expected, strict=True):
            np.testing.assert_allclose(one[-1], other[-1], atol=1e-5)
    (low, high) = MODEL.embed_each([own, own], [8000, 16000])
    np.testing.assert_allclose(low, MODEL.embed(own, 8000), atol=1e-5)
    np.testing.assert_allclose(high, MODEL.embed(own, 16000), atol=1e-5)


def test_a_recording_among_many_that_is_none_is_numbered():
    with pytest.raises(ConfigError, match=r"recording 1: .*not all are finite"):
        [*MODEL.embed_each([samples(0.2), np.full(99, np.nan)], RATE)]
    with pytest.raises(ConfigError, match="recording 0: samples were given without sample_rate"):
        [*MODEL.embed_each([samples(0.2)])]
    with pytest.raises(ValueError, match="shorter"):
        [*MODEL.embed_each([samples(0.2)] * 2, [RATE])]


def test_bf16_is_asked_for_and_near(sounds):
    half = Model(MODEL.config, MODEL.objective, "cpu", "bf16-mixed")
    for hop in (None, 0.5):
        exact, near = (np.asarray(model.embed(sounds(1.0), hop=hop)[-1]) for model in (MODEL, half))
        np.testing.assert_allclose(near, exact, atol=0.1)
        assert (near != exact).any()
    assert numbers(half.predict(sounds(1.0))[0]).sum() == pytest.approx(1.0, abs=1e-2)
    assert Model(MODEL.config, MODEL.objective, "cpu", "auto").precision == "32-true"


def test_the_fastest_precision_is_measured_and_its_agreement_stated(capsys):
    model = Model(MODEL.config, MODEL.objective, "cpu", "fastest")
    assert model.precision in ("32-true", "bf16-mixed")
    stated = " ".join(capsys.readouterr().err.split())
    assert f"precision {model.precision}: here bf16 is" in stated
    same = Model(MODEL.config, MODEL.objective, "cpu", model.precision)
    sound = samples(0.7)
    np.testing.assert_array_equal(model.embed(sound, RATE), same.embed(sound, RATE))


# --- run folders ---


def test_a_run_folder_gives_the_model_that_was_written(tmp_path):
    loaded = melpatch.load(write_run(tmp_path / "run", MODEL.config), device="cpu")
    assert loaded.config == MODEL.config
    assert (loaded.labels, loaded.seconds, loaded.sample_rate) == (LABELS, 1.0, RATE)
    sound = samples(1.5)
    np.testing.assert_array_equal(loaded.embed(sound, RATE), MODEL.embed(sound, RATE))
    assert not loaded.objective.training


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.toml: cannot be read.*give a run folder"):
        melpatch.load(tmp_path)


def test_a_run_without_weights_is_refused(tmp_path):
    folder = write_run(tmp_path / "run", MODEL.config)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: no such file"):
        melpatch.load(folder)


def test_weights_that_do_not_fit_the_settings_are_refused(tmp_path):
    write_run(tmp_path / "small", MODEL.config)
    folder = write_run(tmp_path / "run", settings(LABELS, embed_dim=32))
    (tmp_path / "small" / "model.safetensors").replace(folder / "model.safetensors")
    with pytest.raises(ConfigError, match=r"model\.safetensors does not fit config\.toml"):
        melpatch.load(folder)
