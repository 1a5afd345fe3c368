import json
import math
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

from melpatch.checkpoint import load_into, load_weights, save_weights
from melpatch.errors import CheckpointError, ConfigError

TENSORS = st.dictionaries(
    st.text("abc.", min_size=1, max_size=8),
    st.sampled_from(
        [
            torch.arange(6.0).view(2, 3),
            torch.zeros(0, 4),
            torch.tensor(3),
            torch.ones(2, dtype=torch.bfloat16) / 3,
        ]
    ),
    max_size=4,
)


@given(TENSORS)
def test_weights_come_back_as_they_were(tmp_path_factory, state):
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_weights(path, state)
    back = load_weights(path)
    assert back.keys() == state.keys()
    assert all(
        back[name].dtype == value.dtype and torch.equal(back[name], value)
        for name, value in state.items()
    )


def test_views_and_shared_and_trained_tensors_can_be_saved(tmp_path):
    table = torch.arange(12.0).view(3, 4)
    state = {
        "view": table.T[1:],
        "same": table,
        "again": table,
        "trained": torch.nn.Parameter(table),
    }
    save_weights(tmp_path / "x.safetensors", state)
    back = load_weights(tmp_path / "x.safetensors")
    assert all(torch.equal(back[name], value) for name, value in state.items())


def test_equal_weights_give_equal_files(tmp_path):
    for name in ("a", "b"):
        save_weights(tmp_path / name, {"x": torch.arange(5.0), "y": torch.zeros(2)})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors: no such file; give the folder of"
    ):
        load_weights(tmp_path / "model.safetensors")


@pytest.mark.parametrize("left", [0, 5, 100])
def test_damaged_weights_are_named(tmp_path, left):
    path = tmp_path / "model.safetensors"
    save_weights(path, {"x": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors: not a readable safetensors file"
    ) as caught:
        load_weights(path)
    assert "\n" not in str(caught.value)


# ----------------------------------------------------------------------------- what others wrote


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_one_weight_that_is_no_finite_number_is_refused(tmp_path, number, dtype):
    weights = torch.ones(3, 4, dtype=dtype)
    weights[1, 2] = number
    save_weights(tmp_path / "w.safetensors", {"a": torch.ones(2), "b": weights})
    with pytest.raises(CheckpointError, match=r"b holds 1 of 12 weights that are NaN or infinite"):
        load_weights(tmp_path / "w.safetensors")
    assert load_weights(tmp_path / "w.safetensors", finite=False).keys() == {"a", "b"}


def test_large_finite_weights_are_taken(tmp_path):
    save_weights(tmp_path / "w.safetensors", {"a": torch.full((4,), 3e38)})
    assert load_weights(tmp_path / "w.safetensors")["a"].isfinite().all()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            {"weight": torch.ones(2, 3, dtype=torch.int64), "bias": torch.ones(2)},
            "instead of floats",
        ),
        ({"weight": torch.ones(2, 4), "bias": torch.ones(2)}, "size mismatch for weight"),
        ({"weight": torch.ones(2, 3)}, "Missing key"),
        ({f"x{number}": torch.ones(1) for number in range(999)}, "Unexpected key"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_a_short_line(state, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_into(nn.Linear(3, 2), state)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def test_a_pipe_is_no_weights(tmp_path):
    os.mkfifo(tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="is a named pipe, not a file"):
        load_weights(tmp_path / "w.safetensors")


def test_equal_weights_with_several_facts_are_equal_files(tmp_path):
    facts = {name: f"{name} é" for name in "zyxwvu"}
    state = {"b": torch.zeros(3), "a": torch.arange(5.0)}
    contents = set()
    for number in range(5):
        path = tmp_path / f"{number}.safetensors"
        save_weights(path, state, facts)
        contents.add(path.read_bytes())
    assert len(contents) == 1
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt", **facts}
    assert torch.equal(load_weights(path)["a"], state["a"])


def tensors(number, shape):
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
    return json.dumps({f"t{index}": entry for index in range(number)}).encode()


@pytest.mark.parametrize(
    ("header", "length", "message"),
    [
        (b"{}", 10**12, "a header of 1,000,000,000,000 bytes, more than"),
        (b"{}", 2**64 - 1, "a header of .* bytes, more than"),
        (b'{"a":' + b"[" * 10**5 + b"]" * 10**5 + b"}", None, "recursion limit exceeded"),
        (tensors(1, [2**40, 2**40]), None, "overflow"),
        (tensors(100_000, [0]), None, "100,001 entries, more than the 10,000 expected"),
        (tensors(1, [0] * 10_000), None, "a tensor of more dimensions than expected"),
    ],
)
def test_a_header_that_would_take_all_memory_or_time_is_refused(tmp_path, header, length, message):
    path = tmp_path / "bomb.safetensors"
    path.write_bytes((length or len(header)).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match=rf"bomb.safetensors: not a readable .*{message}"):
        load_weights(path)
