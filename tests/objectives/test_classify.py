import math
from dataclasses import replace

import pytest
import torch
from poolings import POOLINGS, slow_pool

from melpatch.audio.augment import Augment
from melpatch.data.clip import Batch
from melpatch.encoders.cnn14 import CNN14
from melpatch.encoders.vit import ViT
from melpatch.errors import ConfigError
from melpatch.nn.pooling import pooled_dim
from melpatch.objectives.base import Features
from melpatch.objectives.classify import Classify
from melpatch.training.config import RunConfig, build

LABELS = ("bird", "car", "rain")
LENGTHS = (16000, 5000, 9000, 12000)
MIXUP = Augment.Config(mixup_rate=0.7, roll=0.5, freq_mask=24, time_mask=24)


def classifier(labels=LABELS, cls_tokens=1, **settings):
    """A nano classifier, in double precision so that differences are not rounding."""
    encoder = ViT.Config.of_size("nano", cls_tokens=cls_tokens)
    return build(
        RunConfig(labels=labels, encoder=encoder, objective=Classify.Config(**settings))
    ).double()


def batch(targets=((1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 0)), lengths=LENGTHS):
    noise = torch.randn(
        len(lengths), max(lengths), generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    inside = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    keys = torch.arange(7, 7 + len(lengths))
    return Batch(
        0.1 * noise * inside,
        torch.tensor(lengths),
        keys,
        torch.tensor(targets, dtype=torch.float64),
    )


def slow_cross_entropy(scores, targets, smoothing=0.0):
    """One clip: the target, part of it spread over all labels, against the softmax."""
    total = sum(math.exp(score) for score in scores)
    wanted = [
        (1 - smoothing) * target + smoothing * sum(targets) / len(targets) for target in targets
    ]
    return -sum(
        target * math.log(math.exp(score) / total)
        for target, score in zip(wanted, scores, strict=True)
    )


def slow_binary(scores, targets):
    """One clip: every label a question of its own."""
    shares = [1 / (1 + math.exp(-score)) for score in scores]
    pairs = zip(targets, shares, strict=True)
    return -sum(t * math.log(p) + (1 - t) * math.log(1 - p) for t, p in pairs) / len(scores)


def slow_scores(objective, spectrogram, frames):
    """Clip by clip, from the clip's own frames alone."""
    clips = zip(spectrogram, frames.tolist(), strict=True)
    return torch.cat([objective.logits(Features(clip[None, :, :own], None)) for clip, own in clips])


def scores_of(objective, data):
    return slow_scores(objective, *objective.front_end(data.wave, data.lengths))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@torch.inference_mode()
def test_loss_of_single_labels(smoothing):
    objective, data = classifier(label_smoothing=smoothing), batch()
    output, scores = objective(data, 0), scores_of(objective, data).tolist()
    losses = [
        slow_cross_entropy(s, t, smoothing)
        for s, t in zip(scores, data.targets.tolist(), strict=True)
    ]
    assert float(output.loss) == pytest.approx(sum(losses) / 4, abs=1e-12)
    assert output.weight == 4


WEIGHTS = (0.5, 3.0, 0.0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@torch.inference_mode()
def test_class_weights_multiply_the_losses_of_single_labels(smoothing):
    """The mean is over clips, not over weights, so that it does not depend on how these are divided."""
    objective, data = classifier(label_smoothing=smoothing, class_weights=WEIGHTS), batch()
    output, scores = objective(data, 0), scores_of(objective, data).tolist()
    losses = [
        WEIGHTS[target.index(1)] * slow_cross_entropy(score, target, smoothing)
        for score, target in zip(scores, data.targets.tolist(), strict=True)
    ]
    assert float(output.loss) == pytest.approx(sum(losses) / 4, abs=1e-12)
    assert output.weight == 4
    assert "class_weights" not in objective.state_dict()


@torch.inference_mode()
def test_class_weights_multiply_the_positive_part_of_several_labels():
    targets = ((1, 1, 0), (0, 0, 0), (0, 0, 1), (1, 1, 1))
    objective = classifier(multi_label=True, class_weights=WEIGHTS)
    data = batch(targets)
    total = 0.0
    for score, target in zip(scores_of(objective, data).tolist(), targets, strict=True):
        for s, t, weight in zip(score, target, WEIGHTS, strict=True):
            share = 1 / (1 + math.exp(-s))
            total -= weight * t * math.log(share) + (1 - t) * math.log(1 - share)
    assert float(objective(data, 0).loss) == pytest.approx(total / 12, abs=1e-12)


@pytest.mark.parametrize("weights", [(1.0, 2.0), (0.0, 0.0, 0.0), (1.0, -1.0, 1.0)])
def test_class_weights_that_cannot_be_meant_are_refused(weights):
    with pytest.raises(ConfigError, match="class_weights"):
        classifier(class_weights=weights)


@pytest.mark.parametrize("multi_label", [False, True])
@torch.inference_mode()
def test_accuracy_is_the_share_of_clips_whose_best_label_is_one_of_theirs(multi_label):
    objective, data = classifier(multi_label=multi_label), batch()
    best = scores_of(objective, data).argmax(dim=1)
    data.targets = torch.eye(3, dtype=torch.float64)[best]
    data.targets[2] = 1 - data.targets[2]
    assert objective(data, 0).metrics["accuracy"] == 0.75


@torch.inference_mode()
def test_loss_of_several_labels():
    objective, data = (
        classifier(multi_label=True),
        batch(((1, 1, 0), (0, 0, 0), (0, 0, 1), (1, 1, 1))),
    )
    output, scores = objective(data, 0), scores_of(objective, data).tolist()
    losses = [slow_binary(s, t) for s, t in zip(scores, data.targets.tolist(), strict=True)]
    assert float(output.loss) == pytest.approx(sum(losses) / 4, abs=1e-12)


@pytest.mark.parametrize("mixup_on", ["wave", "spectrogram"])
@pytest.mark.parametrize(
    ("multi_label", "loss", "slow"),
    [
        (False, "auto", slow_cross_entropy),
        (False, "sigmoid", slow_binary),
        (True, "auto", slow_binary),
    ],
)
@torch.inference_mode()
def test_mixed_clips_have_mixed_targets(multi_label, loss, slow, mixup_on):
    augment = replace(MIXUP, mixup_on=mixup_on)
    objective, data = classifier(multi_label=multi_label, loss=loss, augment=augment), batch()
    at = (data.keys, data.partners, objective.seed, 5)
    wave, targets = objective.augment.wave(data.wave, data.lengths, data.targets, *at)
    assert ((targets > 0) & (targets < 1)).any() == (mixup_on == "wave")
    spectrogram, frames = objective.front_end(wave, data.lengths)
    spectrogram, targets = objective.augment.spectrogram(spectrogram, frames, targets, *at)
    assert ((targets > 0) & (targets < 1)).any()
    scores = slow_scores(objective, spectrogram, frames).tolist()
    losses = [slow(s, t) for s, t in zip(scores, targets.tolist(), strict=True)]
    assert float(objective(data, 5).loss) == pytest.approx(sum(losses) / 4, abs=1e-12)
    assert not torch.equal(objective(data, 6).loss, objective(data, 5).loss)


@torch.inference_mode()
def test_probabilities_are_those_of_the_clips_as_they_are():
    data = batch()
    single, several = classifier(augment=MIXUP), classifier(augment=MIXUP, multi_label=True)
    several.load_state_dict(single.state_dict())
    scores = scores_of(single, data)
    torch.testing.assert_close(
        single.probabilities(data), scores.exp() / scores.exp().sum(dim=1, keepdim=True)
    )
    torch.testing.assert_close(several.probabilities(data), 1 / (1 + (-scores).exp()))


@torch.inference_mode()
def test_yes_or_no_to_every_label_where_one_is_right():
    """Loss: a question per label. Probabilities: of each where exactly one is right, so that they sum to one."""
    objective, data = classifier(loss="sigmoid"), batch()
    scores = scores_of(objective, data)
    losses = [
        slow_binary(s, t) for s, t in zip(scores.tolist(), data.targets.tolist(), strict=True)
    ]
    assert float(objective(data, 0).loss) == pytest.approx(sum(losses) / 4, abs=1e-12)
    yes = 1 / (1 + (-scores).exp())
    only = torch.stack([yes[:, i] * (1 - yes).prod(1) / (1 - yes[:, i]) for i in range(3)], dim=1)
    torch.testing.assert_close(objective.probabilities(data), only / only.sum(1, keepdim=True))


def test_a_softmax_over_several_right_labels_is_refused():
    with pytest.raises(
        ConfigError, match="loss = 'softmax'; allowed: auto or sigmoid, since clips have several"
    ):
        Classify.Config(multi_label=True, loss="softmax")


def slow_partial_scores(objective, data, step):
    """Clip by clip: the encoder is given the tokens that are left, one by one, and each row is pooled by itself."""
    encoder, pooling, found = objective.encoder, objective.config.pooling, []
    for clip, length in enumerate(data.lengths.tolist()):
        spectrogram, _ = objective.front_end(
            data.wave[clip : clip + 1, :length], data.lengths[clip : clip + 1]
        )
        tokens, key = encoder.tokens(spectrogram), data.keys[clip : clip + 1]
        columns = tokens.shape[1] // 8
        masked = objective.patch_out(
            key, columns, seed=objective.seed, step=step, purpose="patch-out"
        )
        left = sorted(masked.visible.indices[0].tolist())
        assert len(left) == 8 * columns - math.floor(0.4 * 8 * columns)
        encoded = encoder.encode_tokens(tokens[:, left])
        tokens = {divmod(token, columns): encoded.patches[0, i] for i, token in enumerate(left)}
        found.append(objective.head(slow_pool(tokens, encoded.cls[0], 8, pooling)))
    return torch.stack(found)


@pytest.mark.parametrize("lengths", [LENGTHS, (9000,) * 4], ids=["padded", "equal"])
@pytest.mark.parametrize("pooling", POOLINGS)
@torch.inference_mode()
def test_training_leaves_patches_out_and_pools_those_that_are_left(pooling, lengths):
    objective, data = classifier(pooling=pooling, patch_out=0.4).train(), batch(lengths=lengths)
    for step in (0, 1):
        scores = slow_partial_scores(objective, data, step).tolist()
        losses = [
            slow_cross_entropy(s, t) for s, t in zip(scores, data.targets.tolist(), strict=True)
        ]
        assert float(objective(data, step).loss) == pytest.approx(sum(losses) / 4, abs=1e-10)
    assert not torch.equal(objective(data, 0).loss, objective(data, 1).loss)


@torch.inference_mode()
def test_in_use_no_patch_is_left_out():
    whole, objective, data = classifier().eval(), classifier(patch_out=0.4).eval(), batch()
    objective.load_state_dict(whole.state_dict())
    assert torch.equal(objective(data, 0).loss, whole(data, 0).loss)
    assert torch.equal(objective.probabilities(data), whole.probabilities(data))
    assert not torch.equal(objective.train()(data, 0).loss, whole(data, 0).loss)


@torch.inference_mode()
def test_a_clip_of_one_patch_keeps_it():
    encoder = ViT.Config.of_size("nano", patch=(128, 16))
    config = RunConfig(labels=LABELS, encoder=encoder, objective=Classify.Config(patch_out=0.9))
    objective, data = build(config).double().train(), batch(lengths=(400,) * 4)
    losses = [
        slow_cross_entropy(s, t)
        for s, t in zip(scores_of(objective, data).tolist(), data.targets.tolist(), strict=True)
    ]
    assert float(objective(data, 0).loss) == pytest.approx(sum(losses) / 4, abs=1e-12)


def slow_mixed_scores(objective, data):
    """Clip by clip and token by token: the weighted sum of the blocks' outputs, projected, pooled, and the head."""
    encoder, config, found = objective.encoder, objective.config, []
    shares = objective.mix.detach().exp() / objective.mix.detach().exp().sum()
    for clip, length in enumerate(data.lengths.tolist()):
        spectrogram, _ = objective.front_end(
            data.wave[clip : clip + 1, :length], data.lengths[clip : clip + 1]
        )
        layers = encoder(spectrogram, None, layers=True).layers
        tokens = [sum(share * layer[0, i] for share, layer in zip(shares, layers, strict=True))
                  for i in range(layers[0].shape[1])]  # fmt: skip
        if objective.projection is not None:
            tokens = [
                objective.projection.weight @ token + objective.projection.bias for token in tokens
            ]
        columns = (len(tokens) - 1) // 8
        patches = {divmod(i, columns): token for i, token in enumerate(tokens[1:])}
        found.append(objective.head(slow_pool(patches, tokens[:1], 8, config.pooling)))
    return torch.stack(found)


def mixed(**settings):
    """A classifier on all blocks, whose weights are no longer equal."""
    objective = classifier(layers="mix", **settings)
    with torch.no_grad():
        objective.mix.copy_(torch.tensor([0.5, -1.0, 2.0, 0.0]))
    return objective


@pytest.mark.parametrize("projection", [0, 5])
@pytest.mark.parametrize("pooling", POOLINGS)
@torch.inference_mode()
def test_all_layers_are_mixed_and_projected_before_the_pooling(pooling, projection):
    objective, data = mixed(pooling=pooling, projection=projection), batch()
    together = objective.logits(objective.features(data))
    torch.testing.assert_close(together, slow_mixed_scores(objective, data), rtol=0, atol=1e-10)


def test_layers_start_with_equal_weights_and_learn_others():
    objective = classifier(layers="mix", projection=5, pooling="mean")
    assert torch.equal(objective.mix.softmax(0), torch.full((4,), 0.25, dtype=torch.float64))
    objective(batch(), 0).loss.backward()
    trained = {
        name for name, p in objective.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert {"mix", "projection.weight", "head.weight", "encoder.projection.weight"} <= trained
    assert not any(
        name.startswith("encoder.transformer.norm") for name in trained
    )  # the mixture lies before it


@torch.inference_mode()
def test_a_projection_takes_the_place_of_the_heads_norm():
    objective = classifier(projection=5, pooling="mean")
    encoded, head = (
        objective.encoder(*objective.features(data := batch(lengths=(9000,) * 4))),
        objective.head,
    )
    by_hand = encoded.patches.mean(1) @ objective.projection.weight.T + objective.projection.bias
    torch.testing.assert_close(
        objective.logits(objective.features(data)), by_hand @ head.weight.T + head.bias
    )


@torch.inference_mode()
def test_patches_may_be_left_out_of_a_mixture():
    """Those that are left are mixed: with all weight on the last block and no last norm, as the encoder gives them."""
    objective, data = classifier(layers="mix", pooling="mean", patch_out=0.4).train(), batch()
    plain = classifier(pooling="mean", patch_out=0.4).train()
    plain.load_state_dict(objective.state_dict(), strict=False)
    for model in (objective, plain):
        model.encoder.transformer.norm = torch.nn.Identity()
    objective.mix[-1] = 1000.0
    assert float(objective(data, 0).loss) == pytest.approx(float(plain(data, 0).loss), abs=1e-12)


def test_a_head_may_hear_the_statistics_of_the_input():
    """Patches that are left out take their statistics with them; what is left trains the encoder."""
    pooling = "rows+mean+std+input"
    objective, data = classifier(pooling=pooling, patch_out=0.4).train(), batch()
    whole = classifier(pooling=pooling).eval()
    whole.load_state_dict(objective.state_dict())
    loss = objective(data, 0).loss
    loss.backward()
    assert objective.encoder.projection.weight.grad.any()
    channels = objective.encoder.pooled_channels(objective.pooling)
    assert channels == objective.encoder.embed_dim + 2 * objective.encoder.grid.patch[0]
    assert objective.vector_dim == 2 * objective.encoder.grid.rows * channels
    assert objective.eval()(data, 0).loss == whole(data, 0).loss != loss


@pytest.mark.parametrize(
    "settings", [{"layers": "mix"}, {"head": "attentive", "attentive_heads": 1}]
)
def test_the_input_is_refused_where_no_pooled_tokens_are_heard(settings):
    with pytest.raises(ConfigError, match=r"pooling = 'mean\+input'; allowed: no .*input, since"):
        Classify.Config(pooling="mean+input", **settings)


@pytest.mark.parametrize("head", ["attentive", "prototype"])
@pytest.mark.parametrize("pooling", ["layers=1,2", "layer-mean=1", "rows+mean+layers=all"])
def test_heads_of_all_tokens_take_no_other_layers(head, pooling):
    """They hear the last layer, in training and in whole recordings."""
    with pytest.raises(ConfigError, match=r"pooling = .*; allowed: no layers and no input, since"):
        Classify.Config(head=head, attentive_heads=1, pooling=pooling)


def test_blocks_of_different_widths_are_not_mixed():
    config = RunConfig(
        labels=LABELS, encoder=CNN14.Config(width=1), objective=Classify.Config(layers="mix")
    )
    with pytest.raises(
        ConfigError, match=r"objective.layers = 'mix'; allowed: 'last', since the blocks of this"
    ):
        build(config)


def test_a_projection_of_negative_width_is_refused():
    with pytest.raises(ConfigError, match="projection = -1; allowed: 0 for none, or a width"):
        Classify.Config(projection=-1)


def test_patches_cannot_be_left_out_of_an_encoder_that_takes_no_part():
    config = RunConfig(
        labels=LABELS, encoder=CNN14.Config(width=1), objective=Classify.Config(patch_out=0.4)
    )
    with pytest.raises(
        ConfigError, match=r"objective.patch_out = 0.4; allowed: 0, since this encoder"
    ):
        build(config)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_cnn_is_pooled_too(pooling):
    encoder = CNN14.Config(width=1, dropout=0.0, neck_dropout=0.0)
    config = RunConfig(labels=LABELS, encoder=encoder, objective=Classify.Config(pooling=pooling))
    objective, data = build(config).double().eval(), batch()
    torch.testing.assert_close(
        objective.logits(objective.features(data)), scores_of(objective, data)
    )
    objective(data, 0).loss.backward()
    assert all(p.grad is not None for p in objective.encoder.blocks.parameters())
    assert (objective.encoder.neck.weight.grad is not None) == (pooling == "cls")


@pytest.mark.parametrize("pooling", POOLINGS)
@torch.inference_mode()
def test_every_pooling_gives_a_clip_the_same_scores_alone_and_in_a_batch(pooling):
    objective, data = classifier(pooling=pooling), batch()
    together = objective.logits(objective.features(data))
    torch.testing.assert_close(together, scores_of(objective, data), rtol=0, atol=1e-10)
    assert objective.head[1].in_features == pooled_dim(96, 8, pooling)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_frozen_encoder_has_no_gradient_and_the_head_has(frozen):
    objective = classifier(frozen=frozen)
    objective(batch(), 0).loss.backward()
    assert all((p.grad is None) == frozen for p in objective.encoder.parameters())
    assert all(p.grad.any() for p in objective.head.parameters())


def test_only_the_last_layers_the_final_norm_and_the_head_are_trained():
    objective = classifier(trained_layers=2)
    objective(batch(), 0).loss.backward()
    layers = objective.encoder.parameter_layers()
    assert {*layers.values()} == {0, 1, 2, 3, 4, 5}
    for name, parameter in objective.encoder.named_parameters():
        assert (parameter.grad is not None) == (layers[name] >= 3), name
    assert all(p.grad.any() for p in objective.head.parameters())


def test_layers_that_are_not_trained_stay_in_evaluation_mode():
    objective = classifier(trained_layers=1).train()
    blocks = objective.encoder.ordered_layers()
    assert [block.training for block in blocks] == [False, False, False, True]
    assert objective.head.training
    assert not objective.encoder.dropout.training
    assert not any(module.training for module in objective.eval().modules())
    assert all(module.training for module in classifier(trained_layers=None).train().modules())


def test_batch_norms_of_layers_that_are_not_trained_keep_their_statistics():
    encoder = CNN14.Config.of_size("nano")
    config = Classify.Config(trained_layers=1, pooling="cls", head="linear")
    objective = build(RunConfig(labels=LABELS, encoder=encoder, objective=config)).double().train()
    before = {name: value.clone() for name, value in objective.encoder.named_buffers()}
    objective(batch(), 0)
    last = f"blocks.{objective.encoder.num_layers - 1}."
    changed = {
        name for name, value in objective.encoder.named_buffers() if not value.equal(before[name])
    }
    assert changed
    assert all(name.startswith(last) for name in changed)


@pytest.mark.parametrize("count", [0, 5, -1])
def test_a_number_of_trained_layers_that_the_encoder_does_not_have_is_refused(count):
    with pytest.raises(ConfigError, match=rf"trained_layers = {count}; allowed: 1 to 4"):
        classifier(trained_layers=count)


def test_a_frozen_encoder_has_no_trained_layers():
    with pytest.raises(ConfigError, match="none where the encoder is frozen"):
        classifier(trained_layers=1, frozen=True)


@torch.inference_mode()
def test_scores_are_float32_under_autocast():
    objective, data = classifier().float(), batch()
    data.wave = data.wave.float()
    exact = objective.logits(objective.features(data))
    with torch.autocast("cpu", torch.bfloat16):
        rough = objective.logits(objective.features(data))
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().max() < 0.05
    assert not torch.equal(rough, exact)


@pytest.mark.parametrize(("labels", "multi_label"), [((), False), (("one",), False), ((), True)])
def test_too_few_labels_are_refused(labels, multi_label):
    with pytest.raises(ConfigError, match="a classifier needs two or more"):
        classifier(labels, multi_label=multi_label)


def test_one_label_may_be_there_or_not():
    objective = classifier(("bird",), multi_label=True)
    assert objective(batch(((1,), (0,), (0,), (1,))), 0).loss.isfinite()


def test_clips_without_labels_are_refused():
    data = batch()
    data.targets = None
    with pytest.raises(ConfigError, match="clips without labels"):
        classifier()(data, 0)


def test_class_pooling_without_a_class_token_is_refused():
    with pytest.raises(ConfigError, match="pooling = 'cls'"):
        classifier(pooling="cls", cls_tokens=0)(batch(), 0)


@pytest.mark.parametrize("share", [-0.1, 1.0])
@pytest.mark.parametrize("field", ["label_smoothing", "patch_out"])
def test_shares_out_of_range_are_refused(field, share):
    with pytest.raises(ConfigError, match=f"{field} = {share}; allowed: 0 to below 1"):
        Classify.Config(**{field: share})
