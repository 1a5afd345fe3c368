"""The head of SUPERB against one that mixes and projects every frame."""

import pytest
import torch
from protocols.made_up import accuracy, corpus, job

from melpatch.protocols.superb_frozen import LayerMix, SuperbFrozen


def test_the_mean_over_time_may_come_first():
    head = LayerMix(num_layers=4, dim=6, projection=5, num_labels=3).double()
    torch.nn.init.normal_(head.mix)
    frames = [torch.randn(4, length, 6, dtype=torch.float64) for length in (1, 7, 3)]
    share = head.mix.exp() / head.mix.exp().sum()
    for clip, found in zip(
        frames, head(torch.stack([clip.mean(dim=1) for clip in frames])), strict=True
    ):
        projected = []
        for frame in range(clip.shape[1]):
            mixed = sum(share[layer] * clip[layer, frame] for layer in range(4))
            projected.append(head.project.weight @ mixed + head.project.bias)
        slow = head.classify.weight @ (sum(projected) / len(projected)) + head.classify.bias
        torch.testing.assert_close(found, slow)


def test_the_layer_that_says_something_gets_the_weight(tmp_path):
    probe = SuperbFrozen(steps=60, every=20, lr=0.1, projection=8)
    (trial,), _ = probe.run_trials(job(tmp_path, corpus()))
    assert accuracy([trial]) > 0.9
    nothing, something = trial.details["layer_weights"]
    assert nothing + something == pytest.approx(1)
    assert something > nothing + 0.05
    assert trial.details["best_step"] in (20, 40, 60)
