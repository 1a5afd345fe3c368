import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melpatch.checkpoint import load_weights, save_weights
from melpatch.errors import CheckpointError

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
