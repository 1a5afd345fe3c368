"""From a sound file to the logits of published classifiers, front end and head included."""

import pytest
import torch
from golden.published_weights import numbers, published_file, wave

from melpatch.data.clip import Batch
from melpatch.interop.base import Reading
from melpatch.training.foreign import Given, open_foreign

# Families with the array of their logits, and the pooling that their file does not say.
CLASSIFIERS = [
    ("hf_ast", "logits", None),
    ("hf_ast_geometry", "logits", None),
    ("ast", "logits", None),
    ("ssast_patch", "logits_avgtok", "mean"),
    ("ssast_patch", "logits_cls", None),
    ("ssast_frame", "logits_avgtok", None),
    ("ssast_frame", "logits_cls", "cls"),
    ("audiomae_finetuned", "logits", None),
]
HEADS = {"hf_ast_geometry": 2}


def classifier(name, path, pooling=None, quiet=False):
    reading = Reading(num_heads=HEADS.get(name, 3))
    source = published_file(name, path, quiet)
    return open_foreign(source, Given(pooling=pooling, reading=reading))


def logits(objective, clip):
    batch = Batch(clip[None], torch.tensor([len(clip)]), torch.tensor([0]))
    with torch.inference_mode():
        return objective.eval().logits(objective.features(batch))[0]


@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize(("name", "array", "pooling"), CLASSIFIERS)
def test_the_logits_of_a_sound_are_those_of_the_published_code(
    name, array, pooling, quiet, tmp_path
):
    """Quiet norms see variances of 1e-4, so that another epsilon moves the logits by 0.01 or more."""
    expected = numbers(name).get(f"{array}_quiet" if quiet else array)
    if expected is None:
        pytest.skip("there are no such numbers")
    model = classifier(name, tmp_path, pooling, quiet)
    torch.testing.assert_close(logits(model.objective, wave(name)), expected, rtol=0, atol=2e-5)
