"""Weights that were read for their settings, handed over to whoever loads them next."""

import os

import pytest
import torch

from melpatch.handed_over import hand_over, taken_over
from melpatch.weight_files import Weights

WEIGHTS = Weights({"a": torch.ones(2)}, {})


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    return path


def test_weights_are_taken_over_once(source):
    hand_over(str(source), WEIGHTS)
    assert taken_over(str(source)) is WEIGHTS
    assert taken_over(str(source)) is None


def test_the_hub_is_asked_once():
    hand_over("hf:owner/name", WEIGHTS)
    assert taken_over("hf:owner/name") is WEIGHTS


@pytest.mark.parametrize("folder", [False, True])
def test_a_file_that_changed_is_read_again(folder, source):
    given = str(source.parent if folder else source)
    hand_over(given, WEIGHTS)
    os.utime(source, ns=(1, 1))
    assert taken_over(given) is None


def test_weights_of_another_source_are_not_taken(source):
    hand_over(str(source), WEIGHTS)
    assert taken_over("hf:owner/name") is None
    # What nobody takes does not stay in memory.
    assert taken_over(str(source)) is None
