"""Frozen networks: what Model.embed and the encoder say, computed once, and anew whatever changes."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from journeys.three_sounds import settings, write_sound
from poolings import POOLINGS
from tiny_shards import shards

from melpatch.audio.files import read
from melpatch.data.clip import Batch
from melpatch.data.corpus import Corpus
from melpatch.data.manifest import load_corpus
from melpatch.encoders.cnn14 import CNN14
from melpatch.errors import CheckpointError, ConfigError, DataError
from melpatch.evaluation.features import fingerprint_of_clips
from melpatch.evaluation.frozen_features import FrozenFeatures
from melpatch.inference.model import Model
from melpatch.objectives.cola import COLA
from melpatch.training.config import build

CONFIG = settings(cls_tokens=2)
LENGTHS = (0.7, 1.0, 2.3, 0.3, 1.6)


@pytest.fixture
def corpus(tmp_path) -> Corpus:
    for number, seconds in enumerate(LENGTHS):
        write_sound(
            tmp_path / "sounds" / f"{number}.wav",
            ("low", "noise")[number % 2],
            seconds,
            seed=number,
        )
    return load_corpus([tmp_path / "sounds"])


def frozen(folder, config=CONFIG, objective=None, precision="32-true"):
    """A network that counts how often its encoder is asked, and keeps its features in a folder."""
    objective = objective or build(config)
    model = Model(config, objective, precision=precision)
    made = FrozenFeatures.of_model(model, folder, seconds=1.0, batch_size=3)
    made.objective = objective
    made.encoder = objective.export_encoder()
    made.asked = 0

    def count(*_):
        made.asked += 1

    made.encoder.register_forward_hook(count)
    return made


def windows(corpus, number):
    """The windows of a clip, each as a batch, and their lengths."""
    wave, rate = read(corpus.clips[number].path, sample_rate=16000)
    parts = [wave[at : at + rate] for at in range(0, len(wave), rate)]
    return [
        Batch(
            torch.from_numpy(part)[None],
            torch.tensor([len(part)]),
            torch.zeros(1, dtype=torch.int64),
        )
        for part in parts
    ]


@pytest.mark.parametrize("pooling", [*POOLINGS, "rows+std+layers=1,2", "layer-mean=all"])
def test_vectors_are_those_of_embed(corpus, tmp_path, pooling):
    model = Model(CONFIG, build(CONFIG))
    found = frozen(tmp_path, objective=model.objective).vectors(corpus, pooling)
    assert found.clips == corpus.clips
    expected = [model.embed(clip.path, pooling=pooling) for clip in corpus.clips]
    np.testing.assert_allclose(found.vectors, expected, atol=2e-5)


def test_layers_are_means_over_the_patch_tokens_of_each_block(corpus, tmp_path):
    one = frozen(tmp_path)
    found = one.vectors(corpus, "layers=all").vectors
    assert found.shape == (len(LENGTHS), 2 * 16)
    for number, row in enumerate(found):
        tokens = []
        with torch.inference_mode():
            for part in windows(corpus, number):
                features = one.objective.features(part)
                layers = one.encoder(features.spectrogram, layers=True).layers
                tokens.append(torch.cat([layer[0, 2:] for layer in layers], dim=1))
        np.testing.assert_allclose(row, torch.cat(tokens).mean(0).numpy(), atol=2e-5)


def test_tokens_are_the_encoders_own_without_padding(corpus, tmp_path):
    one = frozen(tmp_path)
    found = one.tokens(corpus)
    assert found.values.dtype == np.float16
    batch, valid = found.batch([3, 2, 0])
    assert batch.dtype == torch.float32
    assert (batch[~valid] == 0).all()
    for row, real, number in zip(batch, valid, (3, 2, 0), strict=True):
        with torch.inference_mode():
            parts = [
                one.encoder(one.objective.features(part).spectrogram).patches[0]
                for part in windows(corpus, number)
            ]
        inside = row[real]
        assert len(inside) == sum(map(len, parts))
        expected = torch.cat(parts)
        # Windows come in an order of their own.
        ours, theirs = (tokens[tokens[:, 0].argsort()] for tokens in (inside, expected))
        torch.testing.assert_close(
            ours.sum(0), theirs.sum(0), rtol=0, atol=0.02 * len(theirs) ** 0.5
        )
        assert (torch.cdist(inside, expected).amin(1) < 0.02).all()
        assert (torch.cdist(expected, inside).amin(1) < 0.02).all()


@pytest.mark.parametrize("kind", ["vectors", "tokens"])
def test_they_are_computed_once(corpus, tmp_path, kind):
    first = frozen(tmp_path / "features")
    found = getattr(first, kind)(corpus)
    asked = first.asked
    assert asked > 0
    assert getattr(first, kind)(corpus) is not None
    assert first.asked == asked
    second = frozen(tmp_path / "features")
    again = getattr(second, kind)(corpus)
    assert second.asked == 0
    assert again.clips == found.clips
    for name in ("values", "rows") if kind == "vectors" else ("values", "spans"):
        np.testing.assert_equal(getattr(again, name), getattr(found, name))
    assert len([*(tmp_path / "features").iterdir()]) == 1


def touched(corpus):
    os.utime(corpus.clips[1].path, ns=(1, 1))
    return corpus


def other_order(corpus):
    return replace(corpus, clips=corpus.clips[::-1])


def fewer(corpus):
    return replace(corpus, clips=corpus.clips[1:])


def shorter(corpus):
    return replace(corpus, clips=(replace(corpus.clips[0], duration=0.2), *corpus.clips[1:]))


@pytest.mark.parametrize("change", [touched, other_order, fewer, shorter])
def test_clips_that_change_are_heard_anew(corpus, tmp_path, change):
    frozen(tmp_path / "features").vectors(corpus)
    now = change(corpus)
    one = frozen(tmp_path / "features")
    found = one.vectors(now)
    assert one.asked > 0
    np.testing.assert_allclose(found.vectors, frozen(tmp_path / "new").vectors(now).vectors)


@pytest.mark.parametrize(
    "changed",
    [
        replace(CONFIG, seed=1),
        replace(CONFIG, front_end=replace(CONFIG.front_end, mean=1.0)),
        replace(CONFIG, encoder=replace(CONFIG.encoder, num_heads=4)),
    ],
    ids=["weights", "front end", "encoder"],
)
def test_another_network_has_features_of_its_own(corpus, tmp_path, changed):
    first = frozen(tmp_path / "features")
    other = frozen(tmp_path / "features", changed)
    assert first.fingerprint != other.fingerprint
    assert not np.array_equal(first.vectors(corpus).vectors, other.vectors(corpus).vectors)
    assert other.asked > 0


def test_another_arithmetic_has_features_of_its_own_near_to_the_first(corpus, tmp_path):
    first = frozen(tmp_path / "features")
    bf16 = frozen(tmp_path / "features", precision="bf16-mixed")
    vectors, others = (each.vectors(corpus).vectors for each in (first, bf16))
    assert bf16.asked > 0
    assert not np.array_equal(vectors, others)
    assert np.allclose(vectors, others, atol=0.05 * np.abs(vectors).max())


def test_a_file_of_another_network_is_refused(corpus, tmp_path):
    first, other = frozen(tmp_path / "a"), frozen(tmp_path / "b", replace(CONFIG, seed=1))
    first.vectors(corpus)
    other.vectors(corpus)
    (mine,), (theirs,) = (tmp_path / "a").iterdir(), (tmp_path / "b").iterdir()
    shutil.copytree(theirs, mine, dirs_exist_ok=True)
    with pytest.raises(
        CheckpointError, match=f"{mine}: features of another network.*delete the folder"
    ):
        frozen(tmp_path / "a").vectors(corpus)


@pytest.mark.parametrize("kind", ["vectors", "tokens"])
@pytest.mark.parametrize("name", ["about.json", "values"])
@pytest.mark.parametrize("left", [0, 0.7, None])
def test_damaged_features_are_named(corpus, tmp_path, kind, name, left):
    getattr(frozen(tmp_path), kind)(corpus)
    (folder,) = tmp_path.glob(f"{kind}-*")
    file = folder / name
    if left is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: int(left * file.stat().st_size)])
    with pytest.raises(
        CheckpointError, match=f"{folder}: features cannot be read.*delete the folder"
    ):
        getattr(frozen(tmp_path), kind)(corpus)


@pytest.mark.parametrize("kind", ["vectors", "tokens"])
def test_clips_that_cannot_be_read_are_left_out_and_stay_known(corpus, tmp_path, kind):
    corpus.clips[1].path.write_bytes(b"RIFF, but no more")
    left = corpus.clips[:1] + corpus.clips[2:]
    for _ in range(2):
        found = getattr(frozen(tmp_path / "features"), kind)(corpus)
        assert found.clips == left
        assert [one.path for one in found.rejected] == [str(corpus.clips[1].path)]
        assert found.select(corpus.clips).clips == left


@pytest.mark.parametrize("kind", ["vectors", "tokens"])
def test_features_stay_on_the_disk_until_they_are_asked_for(corpus, tmp_path, kind):
    found = getattr(frozen(tmp_path), kind)(corpus)
    some = found.select(corpus.clips[1:4])
    for one in (found, some):
        assert isinstance(one.values, np.memmap)


def test_a_clip_in_a_shard_is_known_by_its_checksum_wherever_the_shard_lies(corpus, tmp_path):
    packed = [replace(clip, size=8, crc32=clip.key & 255) for clip in corpus.clips]
    moved = [replace(clip, path=tmp_path / "not fetched yet") for clip in packed]
    assert (
        fingerprint_of_clips(packed)
        == fingerprint_of_clips(moved)
        != fingerprint_of_clips(corpus.clips)
    )
    assert fingerprint_of_clips(packed) != fingerprint_of_clips(
        [replace(packed[0], crc32=7), *packed[1:]]
    )


@pytest.mark.parametrize("kind", ["vectors", "tokens"])
def test_what_lacks_clips_of_shards_is_made_anew_by_the_next_run(tmp_path, kind):
    corpus = load_corpus([shards(tmp_path)])
    path = corpus.clips[0].path
    path.rename(tmp_path / "aside")
    first = frozen(tmp_path / "features")
    for _ in range(2):
        assert 0 < len(getattr(first, kind)(corpus).clips) < len(corpus.clips)
    asked = first.asked
    getattr(first, kind)(corpus)
    assert first.asked == asked  # once in a run is enough
    (tmp_path / "aside").rename(path)
    for again in (True, False):
        other = frozen(tmp_path / "features")
        assert getattr(other, kind)(corpus).clips == corpus.clips
        assert (other.asked > 0) == again


@pytest.mark.parametrize("kind", ["vectors", "tokens"])
def test_nothing_readable_is_an_error_and_leaves_nothing(corpus, tmp_path, kind):
    for clip in corpus.clips:
        clip.path.unlink()
    with pytest.raises(DataError, match="none of 5 clips can be read"):
        getattr(frozen(tmp_path / "features"), kind)(corpus)
    assert not any((tmp_path / "features").iterdir())


@pytest.mark.parametrize(
    ("pooling", "allowed"),
    [
        ("cls", "mean, std, delta and max"),
        ("layers=3", "layers from 1 to 2"),
        ("Mean", "mean, std"),
    ],
)
def test_vectors_that_the_encoder_has_not_are_refused_before_any_clip(
    corpus, tmp_path, pooling, allowed
):
    one = frozen(tmp_path, settings(cls_tokens=0))
    with pytest.raises(ConfigError, match=f"pooling = .*; allowed: {allowed}"):
        one.vectors(corpus, pooling)
    assert one.asked == 0


def test_blocks_of_different_width_lie_side_by_side_and_have_no_average(corpus, tmp_path):
    config = replace(
        settings(seconds=2.0), encoder=CNN14.Config.of_size("nano"), objective=COLA.Config()
    )
    one = frozen(tmp_path / "features", config)
    widths = [config.encoder.width * 2**number for number in range(6)]
    assert one.vectors(corpus, "layers=all").vectors.shape == (5, sum(widths))
    assert one.vectors(corpus, "cls").vectors.shape == (5, widths[-1])
    with pytest.raises(ConfigError, match="since the layers of this encoder differ in width"):
        one.vectors(corpus, "layer-mean=1,2")
