"""The examples in the docstrings of the encoders and the patch grid work as shown."""

import doctest

import pytest

from melpatch.encoders import beats, byol_a, cnn14, vit
from melpatch.nn import grid


@pytest.mark.parametrize("module", [beats, byol_a, cnn14, vit, grid])
def test_examples_give_what_they_show(module):
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0
