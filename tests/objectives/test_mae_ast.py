import math
from itertools import chain
from typing import get_args

import pytest
import torch
from objectives.tiny_asit import batch
from objectives.tiny_masked import masked, slow_clips

from melpatch.errors import ConfigError
from melpatch.nn.info_nce import Negatives
from melpatch.nn.masking import Masking
from melpatch.objectives.mae_ast import MAEAST

PUBLISHED = {
    "encoder": {"cls_tokens": 0, "positions": "sequence", "norm": "post", "input_norm": "batch"},
    "decoder": {"dim": None, "num_heads": 3, "positions": "sequence", "norm": "post"},
    "mask": Masking.Config(kind="cluster", sides=(2,)),
}


def mae_ast(**settings):
    return masked(MAEAST, **settings)


def slow_losses(objective, data):
    """InfoNCE, accuracy and mean squared error, hidden patch by hidden patch, and how many there are."""
    groups = []
    for decoded, pixels in slow_clips(objective, data):
        groups.append([(token, pixels[place]) for place, token in decoded.items()])
    if objective.config.negatives != "clip":
        groups = [[*chain(*groups)]]
    nce, hits, mse, count = 0.0, 0, 0.0, sum(map(len, groups))
    for group in groups:
        for index, (token, target) in enumerate(group):
            said = objective.discriminative_head(token)
            scores = torch.stack([said @ other for _, other in group])
            nce += scores.logsumexp(dim=0) - scores[index]
            hits += bool(scores.argmax() == index)
            mse += (
                sum(
                    (a - b) ** 2
                    for a, b in zip(objective.generative_head(token), target, strict=True)
                )
                / 64
            )
    return nce / count, hits / count, mse / count, count


@pytest.mark.parametrize("negatives", get_args(Negatives))
@pytest.mark.parametrize(
    "settings",
    [{"encoder": {"cls_tokens": 2}}, {"decoder": {"attention": "windows", "depth": 3}}, PUBLISHED],
    ids=["patches", "windows", "published"],
)
@torch.inference_mode()
def test_losses_are_those_of_the_slow_loop(settings, negatives):
    objective, data = mae_ast(negatives=negatives, generative_weight=3.0, **settings), batch()
    nce, accuracy, mse, count = slow_losses(objective, data)
    output = objective(data, 0)
    torch.testing.assert_close(output.metrics["nce"], nce)
    torch.testing.assert_close(output.metrics["mse"], mse)
    assert output.metrics["accuracy"].item() == pytest.approx(accuracy)
    torch.testing.assert_close(output.loss, nce + 3 * mse)
    assert output.weight == count == 18 + 9 + 12 + 3


@pytest.mark.parametrize("pretext", ["discriminative", "generative"])
def test_one_pretext_alone_has_its_head_its_loss_and_no_other(pretext):
    objective, data, joint = mae_ast(pretext=pretext), batch(), mae_ast()
    name, other = ("nce", "mse") if pretext == "discriminative" else ("mse", "nce")
    assert {key.split("_head")[0] for key in objective.state_dict() if "_head" in key} == {pretext}
    joint.load_state_dict(joint.state_dict() | objective.state_dict())
    output = objective(data, 0)
    assert torch.equal(output.loss, output.metrics[name])
    assert other not in output.metrics
    assert torch.equal(output.loss, joint(data, 0).metrics[name])
    output.loss.backward()
    assert all(parameter.grad.any() for parameter in objective.parameters())


def test_the_generative_loss_counts_ten_times():
    output = mae_ast()(batch(), 0)
    torch.testing.assert_close(output.loss, output.metrics["nce"] + 10 * output.metrics["mse"])


@torch.inference_mode()
def test_silence_is_unanswerable_but_harmless():
    objective, data = mae_ast(front_end={"n_mels": 32}), batch((48,))
    data.wave = torch.zeros_like(data.wave)
    output = objective(data, 0)
    assert output.metrics["accuracy"] == 1  # there is nothing to tell apart
    assert output.metrics["nce"].item() == pytest.approx(math.log(18))


def test_wrong_settings_are_named():
    with pytest.raises(ConfigError, match=r"generative_weight = 0\.0; allowed: above 0"):
        MAEAST.Config(generative_weight=0.0)


@torch.inference_mode()
def test_the_picture_shows_what_the_generative_head_says():
    objective, data = mae_ast(), batch((20, 48))
    picture, grid = objective.picture(data, 0), objective.encoder.grid
    decoded, _ = next(slow_clips(objective, data))
    for (row, column), token in decoded.items():
        expected = objective.front_end.denormalise(
            objective.generative_head(token).view(grid.patch)
        )
        shown = picture.reconstruction[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        torch.testing.assert_close(shown, expected[: shown.shape[0], : shown.shape[1]])
        assert picture.masked[8 * row : 8 * row + 8, 8 * column : 8 * column + 8].all()
    spectrogram = objective.front_end.denormalise(objective.features(data).spectrogram[0])
    torch.testing.assert_close(picture.clean, spectrogram)
    torch.testing.assert_close(
        picture.reconstruction[~picture.masked], spectrogram[~picture.masked]
    )
    assert picture.masked_is_blank


def test_there_is_no_picture_without_reconstruction():
    assert mae_ast(pretext="discriminative").picture(batch(), 0) is None
