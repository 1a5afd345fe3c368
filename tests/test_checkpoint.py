import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melpatch.checkpoint import clear_partial, load_weights, save_weights, written_aside
from melpatch.errors import CheckpointError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_file(path, text):
    path.write_text(text)


def write_folder(path, text):
    path.mkdir()
    (path / "inside.txt").write_text(text)


def content(path):
    return (path / "inside.txt" if path.is_dir() else path).read_text()


@pytest.fixture
def place(tmp_path):
    return tmp_path / "below" / "place"


@pytest.fixture(params=[write_file, write_folder])
def write(request):
    return request.param


def test_what_was_written_aside_takes_its_place(place, write):
    for text in ("old", "new"):
        with written_aside(place) as aside:
            write(aside, text)
            assert not place.exists() or content(place) == "old"
        assert content(place) == text
    assert names(place.parent) == ["place"]


def test_an_error_leaves_the_old_and_nothing_else(place, write):
    with written_aside(place) as aside:
        write(aside, "old")
    with pytest.raises(ZeroDivisionError), written_aside(place) as aside:  # noqa: PT012
        write(aside, "half")
        raise ZeroDivisionError
    assert content(place) == "old"
    assert names(place.parent) == ["place"]


def test_a_crash_leaves_the_old_and_what_is_half_written_can_be_cleared(place, write):
    with written_aside(place) as aside:
        write(aside, "old")
    child = os.fork()
    if child == 0:
        with written_aside(place) as aside:
            write(aside, "half")
            os._exit(9)  # as a kill: nothing is cleaned up
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert content(place) == "old"
    assert names(place.parent) == [f".place.{child}.partial", "place"]
    clear_partial(place.parent)
    assert names(place.parent) == ["place"]


def test_what_an_earlier_process_of_the_same_number_left_is_no_hindrance(place, write):
    place.parent.mkdir()
    write(place.with_name(f".place.{os.getpid()}.partial"), "half")
    with written_aside(place) as aside:
        write(aside, "new")
    assert content(place) == "new"
    assert names(place.parent) == ["place"]


TENSORS = st.dictionaries(
    st.text("abc.", min_size=1, max_size=8),
    st.sampled_from(
        [torch.arange(6.0).view(2, 3), torch.zeros(0, 4), torch.tensor(3), torch.ones(2, dtype=torch.bfloat16) / 3]
    ),
    max_size=4,
)


@given(TENSORS)
def test_weights_come_back_as_they_were(tmp_path_factory, state):
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_weights(path, state)
    back = load_weights(path)
    assert back.keys() == state.keys()
    assert all(back[name].dtype == value.dtype and torch.equal(back[name], value) for name, value in state.items())


def test_views_and_shared_and_trained_tensors_can_be_saved(tmp_path):
    table = torch.arange(12.0).view(3, 4)
    state = {"view": table.T[1:], "same": table, "again": table, "trained": torch.nn.Parameter(table)}
    save_weights(tmp_path / "x.safetensors", state)
    back = load_weights(tmp_path / "x.safetensors")
    assert all(torch.equal(back[name], value) for name, value in state.items())


def test_equal_weights_give_equal_files(tmp_path):
    for name in ("a", "b"):
        save_weights(tmp_path / name, {"x": torch.arange(5.0), "y": torch.zeros(2)})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"model\.safetensors: no such file; give the folder of"):
        load_weights(tmp_path / "model.safetensors")


@pytest.mark.parametrize("left", [0, 5, 100])
def test_damaged_weights_are_named(tmp_path, left):
    path = tmp_path / "model.safetensors"
    save_weights(path, {"x": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a readable safetensors file") as caught:
        load_weights(path)
    assert "\n" not in str(caught.value)
