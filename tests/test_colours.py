import colorsys

import pytest
import torch

from melpatch.colours import class_colours

STEP = 1.2207440846057595


def slow(number):
    hue, share, light = (number / STEP**power % 1 for power in (1, 2, 3))
    return colorsys.hsv_to_rgb(hue, 0.4 + 0.6 * share, 0.45 + 0.55 * light)


def test_colours_walk_through_hue_saturation_and_value():
    assert pytest.approx(STEP + 1) == STEP**4
    numbers = torch.tensor([[0, 1, 2], [511, 1023, 8191]])
    expected = torch.tensor([[slow(number) for number in row] for row in numbers.tolist()])
    torch.testing.assert_close(class_colours(numbers), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("count", "apart"), [(256, 0.06), (1024, 0.025)])
def test_no_two_classes_have_nearly_the_same_colour(count, apart):
    colours = class_colours(torch.arange(count))
    assert torch.pdist(colours).min() > apart
    assert (colours.amax(dim=1) - colours.amin(dim=1)).min() > 0.1  # none is grey
