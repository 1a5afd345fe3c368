import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melpatch.nn.views import averaging_weights, random_crop, random_crops
from melpatch.rng import stream, uniform


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def padded(lengths, frames=None, mels=3):
    """Return clips of noise that depend on their number only, padded with zeros."""
    batch = torch.zeros(len(lengths), mels, frames or max(lengths), dtype=torch.float64)
    for clip, length in enumerate(lengths):
        batch[clip, :, :length] = noise(mels, length, seed=clip)
    return batch


def states(count, purpose="view", first=0):
    return stream(0, purpose, torch.arange(first, first + count), 0)


def slow_cut(state, spectrogram, length, width):
    """Return the piece of one clip without padding, and its start."""
    if length <= width:
        return spectrogram, 0
    start = int(uniform(state[None], 1).item() * (length - width + 1))
    return torch.stack([spectrogram[:, start + frame] for frame in range(width)], dim=1), start


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(1, 14), st.integers(0, 1000)
)
def test_pieces_equal_the_slow_loop_alone_and_in_a_batch(lengths, width, first):
    drawn = states(len(lengths), first=first)
    own = torch.tensor(lengths)
    batches = [
        padded(lengths),
        padded(lengths, frames=20),
    ]  # the second as beside a clip of 20 frames
    for batch in batches:
        pieces = random_crop(drawn, batch, own, width)
        assert pieces.spectrogram.shape == (len(lengths), 3, min(width, batch.shape[2]))
        for clip, length in enumerate(lengths):
            whole = batch[clip, :, :length]
            expected, start = slow_cut(drawn[clip], whole, length, width)
            frames = pieces.frames[clip].item()
            assert frames == min(length, width)
            assert pieces.start[clip] == start
            assert torch.equal(pieces.spectrogram[clip, :, :frames], expected)
            assert not pieces.spectrogram[clip, :, frames:].any()
            alone = random_crop(drawn[clip : clip + 1], whole[None], own[clip : clip + 1], width)
            assert torch.equal(alone.spectrogram[0], expected)
            assert alone.start.tolist() == [start]
            assert alone.frames.tolist() == [frames]


@pytest.mark.parametrize(("length", "width"), [(12, 5), (13, 12), (3, 1)])
def test_every_start_is_equally_likely(length, width):
    clips = 20_000
    places = length - width + 1
    start = random_crop(
        states(clips),
        torch.zeros(1, 1, length).expand(clips, -1, -1),
        torch.full((clips,), length),
        width,
    ).start
    expected = clips / places
    assert start.min() >= 0
    counts = start.bincount(minlength=places)
    assert len(counts) == places
    assert (counts - expected).abs().max() < 5 * expected**0.5


def test_a_piece_at_least_as_long_as_the_clip_is_the_clip():
    batch = padded([4, 7, 9])
    own = torch.tensor([4, 7, 9])
    for width in (9, 10, 1000):
        pieces = random_crop(states(3), batch, own, width)
        assert torch.equal(pieces.spectrogram, batch)
        assert torch.equal(pieces.frames, own)
        assert not pieces.start.any()


def test_pieces_are_ordered_by_number_then_clip():
    lengths = [12, 3, 9]
    batch = padded(lengths)
    own = torch.tensor(lengths)
    groups = [states(3, purpose) for purpose in ("view 0", "view 1", "view 2")]
    pieces = random_crops(iter(groups), batch, own, 4)
    assert pieces.spectrogram.shape == (9, 3, 4)
    for number, group in enumerate(groups):
        for clip in range(3):
            row = 3 * number + clip
            only = slice(clip, clip + 1)
            piece = random_crop(group[only], batch[only], own[only], 4)
            assert torch.equal(pieces.spectrogram[row], piece.spectrogram[0])
            assert pieces.start[row] == piece.start[0]
            assert pieces.frames[row] == piece.frames[0]
    assert len(set(pieces.start[::3].tolist())) > 1  # pieces of one clip differ


# Means


def ragged(pieces, clips, seed=0):
    """Return values and which are chosen: many, few, or for the last clip only one."""
    share = torch.linspace(0.9, 0.1, clips, dtype=torch.float64).repeat(pieces)
    chosen = (noise(pieces * clips, 4, 5, seed=seed).sigmoid() < share[:, None, None]).double()
    chosen[clips - 1 :: clips] = 0.0
    chosen[clips - 1, 0, 0] = 1.0
    return noise(pieces * clips, 4, 5, seed=seed + 1), chosen


def slow_mean(values, chosen, pieces, by_clip):
    clips = len(values) // pieces
    chosen_values = [[] for _ in range(clips)]
    for row in range(len(values)):
        for value, wanted in zip(
            values[row].flatten().tolist(), chosen[row].flatten().tolist(), strict=True
        ):
            if wanted:
                chosen_values[row % clips].append(value)
    if by_clip:
        return sum(sum(clip) / len(clip) for clip in chosen_values) / clips
    everything = [value for clip in chosen_values for value in clip]
    return sum(everything) / len(everything)


@pytest.mark.parametrize("by_clip", [True, False])
@pytest.mark.parametrize(("pieces", "clips"), [(1, 4), (2, 3), (3, 1)])
def test_weights_give_the_mean_of_the_slow_loop(pieces, clips, by_clip):
    values, chosen = ragged(pieces, clips)
    weights = averaging_weights(chosen, pieces, by_clip=by_clip)
    assert weights.shape == chosen.shape
    assert torch.equal(weights > 0, chosen > 0)
    mean = (weights * values).sum().item() / clips
    assert mean == pytest.approx(slow_mean(values, chosen, pieces, by_clip), abs=1e-12)


def test_the_two_means_differ_if_clips_have_different_counts():
    values, chosen = ragged(2, 3)
    means = [
        (averaging_weights(chosen, 2, by_clip=by_clip) * values).sum().item()
        for by_clip in (True, False)
    ]
    assert abs(means[0] - means[1]) > 0.01


def test_a_mean_by_clip_does_not_depend_on_the_division_of_the_batch():
    _, chosen = ragged(2, 3)
    whole = averaging_weights(chosen, 2, by_clip=True)
    for clip in range(3):
        assert torch.equal(averaging_weights(chosen[clip::3], 2, by_clip=True), whole[clip::3])


@pytest.mark.parametrize("by_clip", [True, False])
@pytest.mark.parametrize("share", [0.3, 0.001])
def test_tiny_weights_have_a_mean_too(by_clip, share):
    _, chosen = ragged(2, 3)
    weights = averaging_weights(share * chosen, 2, by_clip=by_clip)
    assert weights.sum().item() / 3 == pytest.approx(1.0)
    torch.testing.assert_close(weights, averaging_weights(chosen, 2, by_clip=by_clip))


@pytest.mark.parametrize("by_clip", [True, False])
def test_without_chosen_values_all_weights_are_zero(by_clip):
    _, chosen = ragged(2, 3)
    chosen[1::3] = 0.0
    weights = averaging_weights(chosen, 2, by_clip=by_clip)
    assert not weights[1::3].any()
    assert weights.isfinite().all()
    assert not averaging_weights(torch.zeros_like(chosen), 2, by_clip=by_clip).any()
