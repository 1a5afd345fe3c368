"""Sound that is still coming: the same answers as for a file, within a hop, from any source."""

import io
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from journeys.three_sounds import LABELS, melpatch, read_table, settings, wave, write_run

from melpatch.cli import main
from melpatch.errors import AudioError, MelpatchError
from melpatch.inference.live import microphone_blocks, piped_blocks, predict_live
from melpatch.inference.model import Model
from melpatch.training.config import build

RATE = 16000


@pytest.fixture(scope="module")
def model():
    config = settings(LABELS)
    return Model(config, build(config), "cpu")


def sound(seconds=2.3):
    return wave("low", seconds).astype(np.float32)


def wav(samples, rate=RATE, **how):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", **how)
    return file.getvalue()


def test_each_answer_is_that_of_the_window_that_ends_there(model):
    samples = sound()
    blocks = np.split(samples, range(8000, len(samples), 8000))
    answers = [*predict_live(model, iter(blocks), RATE)]
    assert [(answer.start, answer.end) for answer in answers] == [
        (pytest.approx(max(0, end - 1)), pytest.approx(end)) for end in (0.5, 1.0, 1.5, 2.0, 2.3)
    ]
    for answer in answers:
        window = samples[round(answer.start * RATE) : round(answer.end * RATE)]
        (expected,) = model.predict(window, RATE)
        assert answer.probabilities == pytest.approx(expected.probabilities, abs=1e-6)


def test_sound_of_another_rate_is_resampled_as_it_comes(model):
    samples = wave("low", 2.0, 44100).astype(np.float32)
    answers = [*predict_live(model, iter(np.split(samples, 4)), 44100)]
    (expected,) = model.predict(samples[-44100:], 44100)
    assert answers[-1].end == pytest.approx(2.0, abs=0.05)
    assert answers[-1].probabilities == pytest.approx(expected.probabilities, abs=0.02)


def test_an_answer_comes_before_the_next_sound_does(model):
    """Nothing more is written to the pipe until the answer is there; otherwise this would wait for ever."""
    reading, writing = os.pipe()
    samples = (sound(1.0) * 32767).astype("<i2").tobytes()
    with os.fdopen(reading, "rb") as pipe:
        os.write(writing, samples[:16000])
        rate, blocks = piped_blocks(pipe, 0.5, RATE)
        answers = predict_live(model, blocks, rate)
        assert next(answers).end == 0.5
        os.write(writing, samples[16000:])
        assert next(answers).end == 1.0
        os.close(writing)
        assert [*answers] == []


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_wav_is_read_as_it_is(subtype, channels):
    samples = np.random.default_rng(0).uniform(-1, 1, size=(1000, channels))
    rate, blocks = piped_blocks(io.BytesIO(wav(samples, 22050, subtype=subtype)), 0.01, None)
    given = [*blocks]
    assert rate == 22050
    assert {len(block) for block in given[:-1]} == {220}
    np.testing.assert_allclose(np.concatenate(given), samples.mean(axis=1), atol=2**-15)


@pytest.mark.parametrize("stated", [None, 0, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_what_follows_the_samples_is_no_sound(stated):
    samples = np.random.default_rng(0).uniform(-1, 1, size=1001)
    content = wav(samples)
    if stated is None:
        content += b"LIST" + (4000).to_bytes(4, "little") + b"\xff\x7f" * 2000
    else:
        # Whoever writes into a pipe does not know the length yet.
        place = content.index(b"data") + 4
        content = content[:place] + stated.to_bytes(4, "little") + content[place + 4 :]
    _, blocks = piped_blocks(io.BytesIO(content), 0.01, None)
    np.testing.assert_allclose(np.concatenate([*blocks]), samples, atol=2**-15)


def test_raw_samples_are_read_from_the_first_one_on():
    samples = np.arange(-5, 6, dtype="<i2") * 1000
    rate, blocks = piped_blocks(io.BytesIO(samples.tobytes()), 4 / 8000, 8000)
    given = [*blocks]
    assert rate == 8000
    assert [len(block) for block in given] == [4, 4, 3]
    np.testing.assert_allclose(np.concatenate(given), samples / 32768)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is no WAV"),
        (b"fLaC....", "is no WAV"),
        (wav(np.zeros(9), subtype="PCM_U8"), "a WAV of 8 bits"),
        (wav(np.zeros(9))[:20], "a WAV without samples"),
        (b"RIFF\x00\x00\x00\x00WAVEdata\xff\xff\xff\xff", "a WAV without samples"),
        (b"RIFF\x00\x00\x00\x00WAVEjunk\xff\xff\xff\xff", "a WAV without samples"),
    ],
)
def test_what_is_no_sound_is_told(content, reason):
    with pytest.raises(AudioError, match=reason):
        piped_blocks(io.BytesIO(content), 0.5, None)


def test_the_command_answers_a_pipe(tmp_path, monkeypatch, capsys):
    run = write_run(tmp_path / "run", settings(LABELS))
    words = ("predict", run, "-", "--hop", "0.5", "--out")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(wav(sound()))))
    melpatch(*words, tmp_path / "live.csv")
    rows = read_table(tmp_path / "live.csv")
    assert list(rows[0]) == ["start", "end", "label", "probability", "note", *LABELS]
    assert [row["end"] for row in rows] == ["0.500", "1.000", "1.500", "2.000", "2.300"]
    assert all(row["label"] in LABELS for row in rows)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(wav(sound()))))
    melpatch(*words, "-")
    assert capsys.readouterr().out.splitlines()[1:] == [",".join(row.values()) for row in rows]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(wav(sound()))))
    assert main([*map(str, words), str(tmp_path / "live.csv")]) == 2
    assert "live.csv" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no recordings are given"),
        (["-"], "--hop is missing"),
        (["--live", "a.wav"], "--live takes no recordings"),
        (["a.wav", "--raw-rate", "8000"], "--raw-rate"),
        (["-", "--hop", "1", "--events", "e.csv"], "--events is for files"),
    ],
)
def test_flags_that_do_not_fit_are_named(tmp_path, words, message, capsys):
    assert main(["predict", str(tmp_path), *words, "--out", str(tmp_path / "p.csv")]) == 2
    assert message in capsys.readouterr().err


def test_a_microphone_that_lacks_its_library_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(MelpatchError, match=r"pip install 'melpatch\[live\]'"):
        microphone_blocks(0.5)


def test_a_microphone_gives_its_blocks(monkeypatch):
    class Stream:
        def __init__(self, rate, size, channels, dtype, callback):
            assert (rate, size, channels, dtype) == (RATE, 8000, 1, "float32")
            self.callback = callback

        def __enter__(self):
            for number in range(3):
                self.callback(np.full((8000, 1), number / 10, dtype=np.float32), 8000, None, None)

        def __exit__(self, *_):
            pass

    fake = SimpleNamespace(
        PortAudioError=OSError,
        query_devices=lambda kind: {"default_samplerate": float(RATE)},
        InputStream=Stream,
    )
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    rate, blocks = microphone_blocks(0.5)
    assert rate == RATE
    given = [next(blocks) for _ in range(3)]
    np.testing.assert_allclose([block.mean() for block in given], [0, 0.1, 0.2], atol=1e-6)


def test_no_microphone_is_told(monkeypatch):
    def none(kind):
        raise ValueError("no default device")

    fake = SimpleNamespace(PortAudioError=OSError, query_devices=none)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    with pytest.raises(MelpatchError, match="--live: no microphone"):
        microphone_blocks(0.5)
