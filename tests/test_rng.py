"""Random numbers: the published generator, its statistics, and independence of count and batch."""

import pytest
import torch
from float64_on_device import Float64OnDevice
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from melpatch import rng

KEYS = torch.arange(20_000) - 10_000
signed = st.integers(-(2**63), 2**63 - 1)
PINNED = {
    "stream": [1125565878100477897, 809149373756449769, -4140002187398981268],
    "uniform": [
        [0.6876060366630554, 0.5213202834129333],
        [0.6603181958198547, 0.46011823415756226],
        [0.7871512174606323, 0.18026739358901978],
    ],
    "normal": [[-0.86477655, -0.81971276], [0.55223417, -1.18574798], [-0.20181018, -1.83732367]],
    "integers": [[686, 518], [658, 457], [786, 176]],
    "permutation": [3, 5, 1, 0, 2, 6, 4, 7],
    "hash": 1879392772501594661,
}


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def test_the_generator_is_splitmix64():
    """The first outputs of the published C code (Vigna, prng.di.unimi.it/splitmix64.c) at state 1234567."""
    numbers = rng._numbers(torch.tensor([1234567]), (5,))[0]
    assert [int(number) % 2**64 for number in numbers] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_numbers_are_those_of_earlier_versions():
    """Runs must keep their masks and crops: other numbers here would break resuming older runs."""
    state = rng.stream(7, "mask", torch.tensor([3, -(2**63), 2**63 - 1]), step=11)
    assert state.tolist() == PINNED["stream"]
    assert rng.uniform(state, 2).tolist() == PINNED["uniform"]
    torch.testing.assert_close(
        rng.normal(state, 2), torch.tensor(PINNED["normal"]), rtol=1e-6, atol=1e-6
    )
    assert rng.integers(state, -5, 1000, 2).tolist() == PINNED["integers"]
    assert rng.permutation(7, "order", 2, 8).tolist() == PINNED["permutation"]
    assert rng.hash_text("melpatch") == PINNED["hash"]


def test_uniform_is_uniform():
    values = rng.uniform(rng.stream(0, "test", KEYS), 10).flatten()
    assert values.min() >= 0
    assert values.max() < 1
    counts = torch.histc(values, bins=256, min=0, max=1)
    assert chisquare(counts.numpy()).pvalue > 0.001


def test_normal_is_normal():
    values = rng.normal(rng.stream(0, "test", KEYS), 10).flatten()
    assert kstest(values.numpy(), "norm").pvalue > 0.001
    assert values.isfinite().all()


@pytest.mark.parametrize("draw", [rng.uniform, rng.normal])
def test_neighbouring_streams_and_numbers_are_uncorrelated(draw):
    """The correlation of 200,000 independent pairs exceeds 0.011 with a probability of 1e-6."""
    values = draw(rng.stream(0, "test", KEYS), 10)
    others = {
        "key": values.roll(1, dims=0),
        "number": values.roll(1, dims=1),
        "step": draw(rng.stream(0, "test", KEYS, step=1), 10),
        "seed": draw(rng.stream(1, "test", KEYS), 10),
        "purpose": draw(rng.stream(0, "tests", KEYS), 10),
        "shifted key": draw(rng.stream(0, "test", KEYS + 2**32), 10),
    }
    correlations = {name: correlation(values, other) for name, other in others.items()}
    assert {name: r for name, r in correlations.items() if abs(r) > 0.011} == {}


@given(
    seed=st.integers(0, 2**32),
    step=st.integers(0, 10**6),
    purposes=st.lists(st.text(max_size=5), max_size=4),
)
def test_streams_drawn_together_equal_those_drawn_one_by_one(seed, step, purposes):
    together = rng.streams(seed, purposes, KEYS, step)
    assert together.shape == (len(purposes), len(KEYS))
    for states, purpose in zip(together, purposes, strict=True):
        assert torch.equal(states, rng.stream(seed, purpose, KEYS, step))


def test_streams_of_neighbouring_keys_share_no_numbers():
    numbers = rng._numbers(rng.stream(0, "test", KEYS), (10,))
    assert len(numbers.unique()) == numbers.numel()


@given(key=signed, seed=st.integers(0, 2**32), count=st.integers(1, 40), more=st.integers(1, 40))
def test_numbers_do_not_depend_on_their_count_or_on_other_clips(key, seed, count, more):
    alone = rng.stream(seed, "test", torch.tensor([key]))
    batch = rng.stream(seed, "test", torch.tensor([5, key, -9]))
    for draw in (rng.uniform, rng.normal):
        assert torch.equal(draw(alone, count)[0], draw(batch, count + more)[1, :count])
        assert torch.equal(draw(alone, 2, count)[0].flatten(), draw(alone, 2 * count)[0])
    assert torch.equal(
        rng.integers(alone, 3, 9, count)[0], rng.integers(batch, 3, 9, count + more)[1, :count]
    )


def test_keys_of_any_integer_type_give_the_same_stream():
    keys = torch.tensor([1, 2, -3])
    assert torch.equal(rng.stream(0, "test", keys), rng.stream(0, "test", keys.int()))


@given(low=st.integers(-1000, 1000), size=st.integers(1, 50))
def test_integers_stay_in_range(low, size):
    values = rng.integers(rng.stream(0, "test", KEYS[:500]), low, low + size, 4)
    assert values.min() >= low
    assert values.max() < low + size


def test_integers_are_uniform_and_reach_every_residue_of_a_long_range():
    small = rng.integers(rng.stream(0, "test", KEYS), 0, 7, 10)
    assert chisquare(small.flatten().bincount().numpy()).pvalue > 0.001
    # Hours of audio have more samples than 24 bits can count.
    long = rng.integers(rng.stream(0, "test", KEYS), 0, 2**36, 10)
    assert chisquare((long.flatten() % 16).bincount().numpy()).pvalue > 0.001


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 512, 4096, 10**6, 10**9, 2**36 - 1, 2**36, 2**53])
def test_integers_equal_those_of_float64_arithmetic(size):
    """Earlier versions computed them in float64. The numbers must stay, and they are exact."""
    state = rng.stream(0, "test", KEYS[:500])
    bits = rng._shift_right(rng._numbers(state, (20,)), 11)
    draws = rng.integers(state, -3, size - 3, 20)
    assert torch.equal(draws, (bits.double() * 2.0**-53 * size).long() - 3)
    exact = [[(int(number) * size >> 53) - 3 for number in row] for row in bits.tolist()]
    assert draws.tolist() == exact


@pytest.mark.parametrize("size", [-1, 2**36 + 1, 2**53 - 1, 2**53 + 1])
def test_integers_of_an_impossible_range_are_refused(size):
    """Their products would exceed 64 bits."""
    with pytest.raises(ValueError, match=r"allowed: 0 to 2\*\*36, or 2\*\*53"):
        rng.integers(KEYS, 0, size, 1)


def test_no_draw_needs_float64_on_the_device():
    keys = KEYS.to("meta")
    with Float64OnDevice() as dtypes:
        state = rng.stream(0, "test", keys)
        rng.streams(0, ["mask", "crop"], keys, 1)
        rng.uniform(state, 2)
        rng.normal(state, 2)
        rng.integers(state, 0, 2**36, 2)
        rng.integers(state, 0, 2**53, 2)
    assert dtypes.operators == []


@given(size=st.integers(0, 200), step=st.integers(0, 10))
def test_permutation_contains_every_number_once(size, step):
    order = rng.permutation(3, "order", step, size)
    assert order.sort().values.tolist() == list(range(size))
    assert torch.equal(order, rng.permutation(3, "order", step, size))


def test_all_numbers_are_equally_likely_at_each_end_of_a_permutation():
    first = torch.stack([rng.permutation(0, "order", step, 8) for step in range(2000)])
    assert chisquare(first[:, 0].bincount(minlength=8).numpy()).pvalue > 0.001
    assert chisquare(first[:, 7].bincount(minlength=8).numpy()).pvalue > 0.001


def test_seeded_sets_and_restores_the_global_generator():
    before = torch.random.get_rng_state()
    with rng.seeded(1, "layers"):
        first = torch.rand(3)
    with rng.seeded(1, "layers"):
        same = torch.rand(3)
    with rng.seeded(2, "layers"):
        other = torch.rand(3)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_bits_are_the_numbers_of_uniform():
    state = rng.stream(0, "test", KEYS[:500])
    assert torch.equal(
        rng.uniform_bits(state, 3, 2).double() / 2**24, rng.uniform(state, 3, 2).double()
    )
