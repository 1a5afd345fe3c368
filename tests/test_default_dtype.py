"""A program that has set another default type of torch gets the same numbers."""

import numpy as np
import pytest
import torch
from tiny_runs import noises, settings

from melpatch.default_dtype import float32_by_default
from melpatch.inference.model import load
from melpatch.training.config import build
from melpatch.training.loop import fit
from melpatch.training.run import Run


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_gives_the_same_numbers_under_another_default(tmp_path, dtype):
    corpus = noises(tmp_path / "noise")
    run = Run.create(tmp_path / "run", settings(steps=1))
    fit(build(run.config), corpus, run)
    sound = corpus.clips[0].path
    expected = load(tmp_path / "run").embed(sound)
    torch.set_default_dtype(dtype)
    try:
        given = load(tmp_path / "run").embed(sound)
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(torch.float32)
    assert given.dtype == np.float32
    assert np.array_equal(given, expected)


def test_the_default_is_restored_after_an_error():
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(ValueError, match="invalid literal"), float32_by_default():
            int("x")
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
