"""Distillation: what the student is asked for, who hears what at which rate, and what is remembered."""

from dataclasses import replace

import pytest
import torch
from small_objectives import CLASSIFIER
from torch.nn.functional import cosine_similarity

from melpatch.audio.logmel import LogMel
from melpatch.audio.resampling import resample
from melpatch.data.clip import Batch
from melpatch.encoders.cnn14 import CNN14
from melpatch.encoders.vit import ViT
from melpatch.errors import ConfigError
from melpatch.nn.pooling import Pooling, pooled_dim
from melpatch.objectives.base import Plan
from melpatch.objectives.classify import Classify
from melpatch.objectives.distill import Distill
from melpatch.objectives.encoder_only import EncoderOnly
from melpatch.objectives.teacher import Memory, Teacher, TeacherConfig, timing
from melpatch.training.config import RunConfig, build

PLAN = Plan(steps=40, batch_size=4, seconds=1.0, longest_segment=1.0, fixed_input=True)
OWN = LogMel.Config(n_mels=32, scale=1.0)
STUDENT = ViT.Config(embed_dim=16, depth=1, num_heads=2)


def vit_teacher(**changes):
    """Return the settings of a ViT without a head, at another rate than the student's."""
    known = {
        "front_end": LogMel.Config(sample_rate=8000, n_mels=32, scale=1.0),
        "encoder": ViT.Config(embed_dim=32, depth=2, num_heads=2),
        "objective": EncoderOnly.Config(),
        "longest": 10.0,
        "vector_dim": 32,
        "token_dim": 32,
        "layer_dims": (32, 32),
    }
    return TeacherConfig(**known | changes)


def distill(network=None, encoder=STUDENT, front_end=OWN, **settings):
    config = RunConfig(
        front_end=front_end,
        encoder=encoder,
        objective=Distill.Config(network=network or vit_teacher(), **settings),
    )
    return build(config)


def tones(count=6):
    """Return clips that differ in pitch."""
    pitch = 200 * 1.7 ** torch.arange(count)[:, None]
    wave = 0.3 * torch.sin(2 * torch.pi * pitch * torch.arange(8000) / 16000)
    return Batch(wave, torch.full((count,), 8000), torch.arange(count))


def batch(lengths=(16000, 9000, 12000), seed=0):
    wave = torch.zeros(len(lengths), max(lengths))
    generator = torch.Generator().manual_seed(seed)
    for row, length in enumerate(lengths):
        wave[row, :length] = 0.1 * torch.randn(length, generator=generator)
    return Batch(wave, torch.tensor(lengths), torch.arange(len(lengths)) + 7)


def test_a_teacher_hears_each_clip_as_it_would_alone_at_its_own_rate():
    objective = distill(pooled=1.0, tokens=1.0)
    data = batch()
    heard = objective.hear(data)
    network = objective.require_teacher()
    for row, length in enumerate(data.lengths.tolist()):
        wave, lengths = resample(
            data.wave[row : row + 1, :length], data.lengths[row : row + 1], 16000, 8000
        )
        spectrogram, _ = network.objective.features(Batch(wave, lengths, data.keys[:1]))
        encoded = network.encoder(spectrogram)
        torch.testing.assert_close(
            heard.vector[row], encoded.patches[0].mean(dim=0), atol=1e-5, rtol=0
        )


def test_the_loss_is_that_of_the_formula():
    objective = distill(pooled=2.0, tokens=0.5, layers=(1, 2), layer_weight=3.0)
    data = batch((16000, 16000))
    output = objective(data, 0)
    vector, columns = objective.encode(data, 0)
    heard = objective.hear(data)
    parts = objective.predicted(heard, vector, columns)
    assert list(parts) == ["pooled", "tokens", "layer_1", "layer_2"]
    losses = {name: (of.prediction - of.target).square().mean() for name, of in parts.items()}
    expected = 2 * losses["pooled"] + losses["tokens"] / 2
    expected = expected + 3 * (losses["layer_1"] + losses["layer_2"]) / 2
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(output.metrics["loss_layer_2"], losses["layer_2"])


def test_tokens_are_compared_at_the_same_time():
    """The student's columns are 160 ms wide, a CNN6's here 96 ms: each target is the mean of what it spans."""
    objective = distill(CLASSIFIER, labels=0.0)
    data = batch((16000,))
    vector, columns = objective.encode(data, 0)
    heard = objective.hear(data)
    of = objective.predicted(heard, vector, columns)["tokens"]
    theirs = heard.tokens
    begin = columns.timing.start + 3 * columns.timing.step
    weights = torch.zeros(theirs.values.shape[2])
    for number in range(len(weights)):
        start = theirs.timing.start + number * theirs.timing.step
        end = min(start + theirs.timing.step, begin + columns.timing.step)
        weights[number] = max(0.0, end - max(start, begin))
    expected = (weights[:, None] * theirs.values[0, 0]).sum(dim=0) / weights.sum()
    torch.testing.assert_close(of.target[0, 3], expected, atol=1e-5, rtol=0)


def test_a_column_stands_for_its_stride_around_the_middle_of_its_patch():
    overlapping = ViT(ViT.Config(embed_dim=16, depth=1, num_heads=2, stride=(10, 10)), 32).grid
    front_end = LogMel.Config(n_mels=32)
    # The middle of 16 frames: 7.5 hops after the middle of the first, which is 12.5 ms in.
    centre = 0.0125 + 7.5 * 0.01
    assert timing(front_end, overlapping).start == pytest.approx(centre - 0.05)
    assert timing(front_end, overlapping).step == pytest.approx(0.1)
    centred = replace(front_end, centred=True)
    assert timing(centred, overlapping).start == pytest.approx(centre - 0.05 - 0.0125)


def test_a_batch_comes_at_the_higher_rate_and_the_student_gets_its_own():
    network = vit_teacher(front_end=LogMel.Config(sample_rate=32000, n_mels=32, scale=1.0))
    objective = distill(network)
    assert objective.wave_rate == 32000
    data = batch((32000, 20000))
    _, columns = objective.encode(data, 0)
    assert columns.values.shape[2] == objective.encoder.grid.columns(
        objective.front_end.frames(16000)
    )
    assert distill().wave_rate == 16000


def test_the_teacher_is_frozen_and_no_part_of_the_weights():
    objective = distill()
    objective.begin(PLAN)
    before = [value.clone() for value in objective.teacher.objective.state_dict().values()]
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
    objective.train()
    objective(batch(), 0).loss.backward()
    optimizer.step()
    after = objective.teacher.objective.state_dict().values()
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert not objective.teacher.objective.training
    assert not any(name.startswith("teacher") for name in objective.state_dict())
    assert objective.double().teacher.encoder.projection.weight.dtype == torch.float64


def test_soft_labels_pull_the_student_to_the_labels_of_the_teacher():
    objective = distill(CLASSIFIER, pooled=0.0, tokens=0.0, labels=1.0)
    # A head of large weights, so that clips differ in their labels.
    objective.learn_from(Teacher(CLASSIFIER))
    head = objective.teacher.objective.head
    with torch.no_grad():
        head[1].weight.mul_(50)
    data = batch((16000,) * 6)
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.01)
    first = objective(data, 0)
    for step in range(40):
        optimizer.zero_grad()
        objective(data, step).loss.backward()
        optimizer.step()
    last = objective(data, 0)
    assert last.loss < 0.5 * first.loss
    assert last.metrics["agreement"] == 1.0
    assert list(last.metrics) == ["agreement"]


@pytest.mark.parametrize("pooling", [None, "mean", "rows+mean+std+input"])
@pytest.mark.parametrize("of_classifier", ["mean", "rows+mean+std+input"])
@torch.inference_mode()
def test_a_classifier_teaches_by_its_own_pooling_whatever_the_student_asks_for(
    of_classifier, pooling
):
    objective = Classify.Config(pooling=of_classifier)
    teacher = Teacher(vit_teacher(objective=objective, labels=("high", "low")))
    data = batch()
    rate = teacher.config.front_end.sample_rate
    heard = teacher.hear(data, rate, pooling, ())
    features = teacher.objective.features(data)
    torch.testing.assert_close(heard.logits, teacher.objective.logits(features))
    wanted = Pooling.parse(pooling or of_classifier)
    channels = teacher.encoder.pooled_channels(wanted)
    assert heard.vector.shape == (3, pooled_dim(channels, teacher.encoder.grid.rows, wanted))
    if str(wanted) == of_classifier:
        _, own = teacher.objective.logits_and_vectors(features)
        torch.testing.assert_close(heard.vector, own)


def test_a_student_does_not_learn_the_statistics_of_its_own_input():
    with pytest.raises(ConfigError, match=r"pooling = 'mean\+input'; allowed: no input"):
        Distill.Config(network=vit_teacher(), pooling="mean+input")


def test_masked_students_predict_the_teacher_of_the_whole_clip():
    objective = distill(patch_out=0.5)
    data = batch()
    _, masked = objective.train().encode(data, 0)
    _, whole = objective.eval().encode(data, 0)
    assert masked.valid.sum() < 0.6 * whole.valid.sum()
    assert (masked.valid <= whole.valid).all()
    heard = objective.hear(data)
    assert torch.equal(heard.vector, objective.train().hear(data).vector)


def test_what_was_heard_once_is_remembered():
    objective = distill(cache_mib=1, layers=(1,))
    objective.begin(PLAN)
    data = batch()
    fresh = objective(data, 0).loss
    objective.teacher = None  # who does not hear any more
    objective._hear = pytest.fail
    torch.testing.assert_close(objective(data, 0).loss, fresh)
    order = torch.tensor([2, 0])
    fewer = Batch(data.wave[order], data.lengths[order], data.keys[order])
    assert torch.equal(objective.hear(fewer).vector[1], objective.hear(data).vector[0])


def test_memory_has_an_end():
    objective = distill()
    data = batch()
    size = sum(
        part.numel() * part.element_size() for part in objective.hear(data).clip(1).tensors()
    )
    memory = Memory(size)  # of the shortest clip
    for _ in range(2):
        heard = memory.recall(data, objective.hear)
        torch.testing.assert_close(heard.vector, objective.hear(data).vector)
        assert len(memory) == 1


def test_a_teacher_whose_tokens_depend_on_the_batch_hears_clips_one_by_one():
    front_end = LogMel.Config(sample_rate=8000, n_mels=32, padding="legacy")
    objective = distill(vit_teacher(front_end=front_end))
    data = batch()
    together = objective.hear(data).vector
    alone = Batch(data.wave[1:2, :9000], data.lengths[1:2], data.keys[1:2])
    torch.testing.assert_close(together[1:2], objective.hear(alone).vector, atol=1e-5, rtol=0)


def test_a_student_of_any_kind_may_learn_from_a_teacher_of_any_kind():
    objective = distill(encoder=CNN14.Config(network="cnn6", width=4), front_end=OWN)
    output = objective(batch(), 0)
    output.loss.backward()
    assert output.loss.isfinite()
    assert objective.encoder.blocks[0].conv1.weight.grad.any()


@pytest.mark.parametrize("loss", ["mse", "cosine", "smooth_l1", "l2"])
def test_predictions_come_to_explain_the_teacher(loss):
    objective = distill(loss=loss, tokens=0.0)
    data = tones()
    head = objective.heads["pooled"]
    vectors = objective.hear(data).vector
    head.standardise_by(vectors.mean(dim=0), vectors.std(dim=0, correction=0))
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.01)
    for step in range(60):
        optimizer.zero_grad()
        output = objective(data, step)
        output.loss.backward()
        optimizer.step()
    assert output.metrics["explained"] > 0.8
    assert float(output.metrics["target_variance"]) == pytest.approx(1.0, abs=1e-4)
    vector, columns = objective.encode(data, 0)
    of = objective.predicted(objective.hear(data), vector, columns)["pooled"]
    assert cosine_similarity(of.prediction, of.target, dim=2).mean() > 0.85


def test_a_run_that_explains_nothing_is_warned_of():
    objective = distill()
    objective.begin(PLAN)
    assert objective.warning({"explained": 0.0}, 5) is None
    assert objective.warning({"explained": 0.5}, 20) is None
    assert objective.warning({"agreement": 0.5}, 20) is None
    assert "explains 0.1% of the teacher's variance" in objective.warning({"explained": 0.001}, 20)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": (3,)}, r"objective.layers = \(3,\); allowed: 1 to 2, those of the teacher"),
        ({"labels": 1.0}, "objective.labels = 1.0; allowed: 0, since the teacher is no classifier"),
        (
            {"patch_out": 0.5, "encoder": CNN14.Config(network="cnn6", width=4)},
            "objective.patch_out = 0.5; allowed: 0, since this encoder",
        ),
    ],
)
def test_what_teacher_or_student_do_not_have_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        distill(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooled": 0.0, "tokens": 0.0}, "pooled = 0.0; allowed: above 0, or one of"),
        ({"layers": (1, 1)}, "layers = .*; allowed: each layer once"),
        ({"temperature": 0.0}, "temperature = 0.0; allowed: above 0"),
        ({"patch_out": 1.0}, "patch_out = 1.0; allowed: 0 to below 1"),
        ({"pooling": "layers=1"}, "pooling = 'layers=1'; allowed: no layers"),
        ({"cache_mib": -1}, "cache_mib = -1; allowed: 0 or more"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Distill.Config(**settings)


def test_segments_that_the_teacher_cannot_hear_and_a_cache_of_changing_ones_are_refused():
    with pytest.raises(
        ConfigError, match=r"seconds = 1.0; allowed: up to 0.5, the most that the teacher"
    ):
        distill(vit_teacher(longest=0.5)).begin(PLAN)
    with pytest.raises(
        ConfigError, match=r"objective.cache_mib = 9; allowed: 0, since each epoch takes"
    ):
        distill(cache_mib=9).begin(PLAN._replace(fixed_input=False))


def test_a_teacher_that_was_not_handed_in_is_asked_for():
    with pytest.raises(ConfigError, match=r"objective.teacher = runs/big: not opened"):
        distill(teacher="runs/big").begin(PLAN)
