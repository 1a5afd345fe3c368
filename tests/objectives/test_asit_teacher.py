"""ASiT's teacher, what is built and computed for which loss, what is refused, and what is drawn."""

import math
from dataclasses import replace

import pytest
import torch
from objectives.tiny_asit import HEADS, OWN, PATCH, RATE, STEP, asit, batch, begun, plan, seconds

from melpatch.errors import ConfigError
from melpatch.nn.corruption import Corruption
from melpatch.nn.self_distillation import SelfDistillation
from melpatch.objectives.asit import ASiT
from melpatch.training.config import TrainConfig
from melpatch.training.trainer import make_optimizer

NAMES = ("pixel", "local", "global")
LOSSES = [
    ("pixel",),
    ("local",),
    ("global",),
    ("pixel", "local"),
    ("pixel", "global"),
    ("local", "global"),
    NAMES,
]


def only(losses, **settings):
    return begun(**{f"{name}_weight": float(name in losses) for name in NAMES}, **settings)


# ------------------------------------------------------------------------------------------ what is built and computed


def rows_into(module):
    """Return a list that grows by the number of rows that each call of a module is given."""
    calls = []
    module.register_forward_hook(lambda _, inputs, __: calls.append(inputs[0].shape[:-1].numel()))
    return calls


def clips_into(encoder):
    calls = []
    encoder.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    return calls


@pytest.mark.parametrize("losses", LOSSES, ids=" ".join)
def test_a_loss_of_weight_zero_is_neither_built_nor_computed(losses):
    objective = only(losses, local_crops=2)
    parts = {name.split(".")[0] for name in objective.state_dict()}
    teaches = {"distillation", "teacher"} if losses != ("pixel",) else set()
    assert parts == {"encoder"} | ({"decoder"} if "pixel" in losses else set()) | teaches
    output = objective(batch(), STEP)
    assert {name for name in NAMES if name in output.metrics} == set(losses)
    assert all(name.split("_")[0] in losses for name in output.metrics)
    if teaches:
        assert set(objective.distillation.targets) == set(losses) - {"pixel"}
        assert set(objective.distillation.student.prototypes) == set(losses) - {"pixel"}
    trained = {
        name: parameter
        for name, parameter in objective.named_parameters()
        if parameter.requires_grad
    }
    output.loss.backward()
    assert [name for name, parameter in trained.items() if parameter.grad is None] == []


@pytest.mark.parametrize("losses", LOSSES, ids=" ".join)
def test_encoders_run_as_often_as_the_losses_need(losses):
    objective = only(losses, local_crops=2)
    student = clips_into(objective.encoder)
    teacher = [] if objective.teacher is None else clips_into(objective.teacher)
    views = objective.views(batch(), STEP)
    assert (views.local_crops is not None) == ("global" in losses)
    objective.losses(views, STEP)
    assert student == ([8, 8] if "global" in losses else [8])
    assert teacher == ([] if losses == ("pixel",) else [8])


def whole(objective, pixels):
    """Return which tokens hold any of these pixels."""
    return objective.encoder.grid.split(pixels.double()).any(dim=2)


@pytest.mark.parametrize("local_tokens", ["all", "corrupted", "separate"])
@pytest.mark.parametrize("pixels", ["corrupted", "all"])
@torch.inference_mode()
def test_heads_are_given_the_tokens_that_their_loss_needs(local_tokens, pixels):
    settings = {"ratio": (0.1, 0.1), "alien_probability": 0.0, "aligned": True}
    objective = begun(
        corruption=Corruption.Config(**settings), local_tokens=local_tokens, pixels=pixels
    )
    decoded = rows_into(objective.decoder)
    heads = [objective.distillation.student, objective.distillation.teacher]
    student, teacher = (rows_into(head.trunks["shared"]) for head in heads)
    views = objective.views(batch(), STEP)
    corrupted, sound = (
        int(whole(objective, pixel).sum()) for pixel in (views.mask, views.valid_pixels)
    )
    assert 0 < corrupted < sound < whole(objective, torch.ones_like(views.valid_pixels)).sum()
    objective.losses(views, STEP)
    assert decoded == [corrupted if pixels == "corrupted" else sound]
    tokens = corrupted if local_tokens == "corrupted" else sound
    assert student == [tokens, 8]
    assert teacher == [tokens, 8]


# ----------------------------------------------------------------------------------------------------- the teacher


def taught(objective):
    """Pairs of the teacher's parameters and the student's that they follow."""
    pairs = []
    for teacher, student in (
        (objective.teacher, objective.encoder),
        (objective.distillation.teacher, objective.distillation.student),
    ):
        followed = dict(student.named_parameters())
        pairs += [(parameter, followed.pop(name)) for name, parameter in teacher.named_parameters()]
        assert not followed
    return pairs


def test_the_teacher_begins_as_a_copy():
    objective = asit()
    with torch.no_grad():
        for _, student in taught(objective):
            student += 1.0
    assert not any(torch.equal(*pair) for pair in taught(objective))
    objective.begin(plan())
    assert all(torch.equal(*pair) for pair in taught(objective))
    assert not any(
        teacher.data_ptr() == student.data_ptr() for teacher, student in taught(objective)
    )


@pytest.mark.parametrize("momentum", [0.9, None])
def test_the_teacher_follows_by_a_momentum_that_rises_to_one(momentum, capsys):
    objective = begun(distillation=replace(HEADS, momentum=momentum))
    first = 0.9 if momentum else 0.5  # 1 - 1 / (a twentieth of 10 steps, but 2 at least)
    assert ("the teacher's momentum starts at 0.50000" in capsys.readouterr().err) == (
        momentum is None
    )
    for step in (0, 3, 9):
        before = [(teacher.clone(), student.clone()) for teacher, student in taught(objective)]
        objective.after_step(step)
        share = 1 - (1 - first) * (math.cos(math.pi * step / 10) + 1) / 2
        for (teacher, student), (old, same) in zip(taught(objective), before, strict=True):
            assert torch.equal(student, same)
            torch.testing.assert_close(
                teacher, share * old + (1 - share) * student, rtol=1e-12, atol=1e-12
            )


def test_no_gradient_reaches_the_teacher_and_no_optimiser_holds_it():
    objective = begun(local_crops=1)
    optimizer = make_optimizer(objective, TrainConfig(decay_tokens=True))
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {
        id(parameter) for parameter in objective.parameters() if parameter.requires_grad
    }
    objective(batch(), STEP).loss.backward()
    for teacher, student in taught(objective):
        assert not teacher.requires_grad
        assert teacher.grad is None
        assert id(teacher) not in held
        assert id(student) in held


def test_the_teacher_is_never_in_training_mode():
    objective, data = begun(encoder={"drop_path": 0.9}), batch()
    views = objective.views(data, STEP)
    for mode in (True, False):
        assert objective.train(mode) is objective
        assert objective.encoder.training is mode
        still = [*objective.teacher.modules(), *objective.distillation.teacher.modules()]
        assert not any(module.training for module in still)
    used = objective.teacher(views.clean).patches
    objective.train()
    assert torch.equal(objective.teacher(views.clean).patches, used)
    assert not torch.equal(
        objective.encoder(views.clean).patches, objective.encoder(views.clean).patches
    )


def test_centres_move_after_a_step_of_training_only():
    objective, data = begun(), batch()
    centres = {
        name: target.centre.clone() for name, target in objective.distillation.targets.items()
    }
    objective.eval()(data, STEP)
    objective.after_step(STEP)
    assert all(
        torch.equal(target.centre, centres[name])
        for name, target in objective.distillation.targets.items()
    )
    objective.train()(data, STEP)
    assert all(
        torch.equal(target.centre, centres[name])
        for name, target in objective.distillation.targets.items()
    )
    objective.after_step(STEP)
    assert not any(
        torch.equal(target.centre, centres[name])
        for name, target in objective.distillation.targets.items()
    )


def test_prototypes_are_still_while_they_are_frozen():
    objective, data = begun(distillation=replace(HEADS, freeze_prototypes=0.35)), batch()
    prototypes = [*objective.distillation.student.prototypes.parameters()]
    for step, moved in ((0, False), (3, False), (4, True)):
        objective(data, step).loss.backward()
        assert [parameter.grad is not None for parameter in prototypes] == [moved, moved]


def test_the_teachers_encoder_is_taken_away_unless_the_students_is_asked_for():
    objective = begun()
    assert objective.export_encoder() is objective.teacher
    objective = begun(export="student")
    assert objective.export_encoder() is objective.encoder
    objective = only(("pixel",))
    assert objective.export_encoder() is objective.encoder


def test_collapse_is_warned_of():
    objective = begun()
    assert objective.warning({"global": 1.0, "global_entropy": 1.0}, 12) is None
    assert "global loss sits at ln K" in objective.warning({"global": math.log(12)}, 12)
    assert only(("pixel",)).warning({"pixel": 0.0}, 12) is None


# ------------------------------------------------------------------------------------------------- what is refused

LEAST = "0.095"  # seconds in the 8 frames of a patch


@pytest.mark.parametrize(
    ("settings", "longest", "message"),
    [
        (
            {"view_seconds": 2.0},
            1.0,
            rf"objective.view_seconds = 2.0; allowed: {LEAST} .* to 1, the longest segment",
        ),
        (
            {"view_seconds": 0.09},
            1.0,
            rf"objective.view_seconds = 0.09; allowed: {LEAST} \(one patch\) to 1",
        ),
        (
            {"view_seconds": None},
            0.15,
            rf"objective.view_seconds = 0.09; allowed: {LEAST} \(one patch\) to 0.15",
        ),
        (
            {"local_crops": 1, "local_crop_seconds": 2.0},
            1.0,
            rf"local_crop_seconds = 2.0; allowed: {LEAST} .* to 0.255, the length of a view",
        ),
        (
            {"local_crops": 1, "local_crop_seconds": 0.05},
            1.0,
            rf"objective.local_crop_seconds = 0.05; allowed: {LEAST}",
        ),
        (
            {"view_seconds": 0.03, "encoder": {"patch": (8, 1)}},
            1.0,
            r"objective.view_seconds = 0.03; allowed: 0.035 \(one patch\)",  # more than a frame
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_before_the_first_step(settings, longest, message):
    objective = asit(**settings)
    with pytest.raises(ConfigError, match=message):
        objective.begin(plan(longest))


@pytest.mark.parametrize(
    "settings",
    [
        {"view_seconds": 1.0},
        {"view_seconds": seconds(PATCH)},
        {"local_crops": 1, "local_crop_seconds": seconds(24)},
    ],
    ids=str,
)
def test_the_ends_of_what_is_allowed_are_trained(settings):
    objective = asit(**settings)
    objective.begin(plan(1.0))
    frames = (RATE - 200) // 80 + 1
    assert objective(batch((frames, 20)), 0).loss.isfinite()


def test_crops_that_are_not_used_may_be_of_any_length():
    asit(local_crop_seconds=99.0).begin(plan(1.0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": {"stride": (8, 4)}}, r"encoder.stride = \(8, 4\); allowed: \(8, 8\)"),
        ({"front_end": {"padding": "legacy"}}, "front_end.padding = 'legacy'; allowed: 'masked'"),
        (
            {"encoder": {"cls_tokens": 0}},
            "encoder.cls_tokens = 0; allowed: 1 or 2 with a global loss",
        ),
    ],
)
def test_encoders_and_front_ends_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        asit(**settings)


def test_without_a_global_loss_no_class_token_is_needed():
    objective = only(("pixel", "local"), encoder={"cls_tokens": 0})
    assert objective(batch(), STEP).loss.isfinite()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            dict.fromkeys(("pixel_weight", "local_weight", "global_weight"), 0.0),
            "pixel_weight = 0.0; allowed: above 0",
        ),
        ({"pixel_weight": -1.0}, "pixel_weight = -1.0; allowed: 0 or more"),
        ({"local_weight": math.inf}, "local_weight = inf; allowed: 0 or more"),
        ({"global_weight": math.nan}, "global_weight = nan; allowed: 0 or more"),
        ({"views": 1}, "views = 1; allowed: 2 to 32 with global_weight 1"),
        ({"views": 0, "global_weight": 0.0}, "views = 0; allowed: 1 to 32"),
        ({"local_crops": -1}, "local_crops = -1; allowed: 0 to 32"),
        ({"corrupt": False}, "pixels = 'corrupted'; allowed: 'all' where nothing is corrupted"),
        (
            {"corrupt": False, "pixels": "all", "local_tokens": "separate"},
            "local_tokens = 'separate'; allowed: 'all'",
        ),
        ({"view_seconds": 0.0}, "view_seconds = 0.0; allowed: seconds above 0"),
        ({"local_crop_seconds": math.inf}, "local_crop_seconds = inf; allowed: seconds above 0"),
        ({"intact_weight": 1.5}, "intact_weight = 1.5; allowed: 0 to 1"),
        ({"corrupted_threshold": -0.1}, "corrupted_threshold = -0.1; allowed: 0 to 1"),
        ({"decoder": (16, 0)}, r"decoder = \(16, 0\); allowed: up to 256 widths of 1 or more"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        ASiT.Config(**settings)


@pytest.mark.parametrize(
    ("part", "settings", "message"),
    [
        (SelfDistillation, {"global_prototypes": 0}, "global_prototypes = 0; allowed: 2 or more"),
        (SelfDistillation, {"local_prototypes": 1}, "local_prototypes = 1; allowed: 2 or more"),
        (
            SelfDistillation,
            {"teacher_temperature": (0.04, 0.1)},
            r"allowed: 0 < start <= end < student_temperature = 0.1",
        ),
        (
            SelfDistillation,
            {"teacher_temperature": (0.07, 0.04)},
            r"teacher_temperature = \(0.07, 0.04\); allowed: 0 <",
        ),
        (
            Corruption,
            {"ratio": (0.7, 0.5)},
            r"ratio = \(0.7, 0.5\); allowed: two shares, low <= high",
        ),
        (Corruption, {"ratio": (0.5, 0.95)}, r"ratio = \(0.5, 0.95\); allowed: .* up to 0.9"),
        (Corruption, {"alien_ratio": 0.0}, "alien_ratio = 0.0; allowed: above 0 and up to 0.9"),
        (Corruption, {"alien_probability": 1.1}, "alien_probability = 1.1; allowed: 0 to 1"),
    ],
)
def test_wrong_settings_of_its_parts_are_named(part, settings, message):
    with pytest.raises(ConfigError, match=message):
        part.Config(**settings)


def test_nothing_to_rebuild_or_to_tell_needs_no_corruption():
    assert ASiT.Config(corrupt=False, pixel_weight=0.0).pixels == "corrupted"
    assert (
        ASiT.Config(corrupt=False, pixels="all", local_weight=0.0, local_tokens="corrupted").pixels
        == "all"
    )


# -------------------------------------------------------------------------------------------------- pictures, bf16


@pytest.mark.parametrize("frames", [(48, 20), (20, 48), (5, 48)], ids=str)
@pytest.mark.parametrize("encoder", [{}, {"partial": "drop"}], ids=str)
@pytest.mark.parametrize("pixels", ["corrupted", "all"])
@torch.inference_mode()
def test_a_picture_shows_the_first_view_its_corruption_what_was_rebuilt_and_the_classes(
    frames, encoder, pixels
):
    objective, data = begun(encoder=encoder, pixels=pixels), batch(frames)
    picture, views = objective.picture(data, STEP), objective.views(data, STEP)
    shown = int(views.valid_pixels[0, 0].sum())
    columns = -(-shown // PATCH)
    denormalise = objective.front_end.denormalise
    assert picture.start == views.start[0]
    assert picture.clean.shape == (32, shown)
    torch.testing.assert_close(picture.clean, denormalise(views.clean)[0, :, :shown])
    torch.testing.assert_close(picture.input, denormalise(views.corrupted)[0, :, :shown])
    assert torch.equal(picture.masked, views.mask[0, :, :shown])
    own = slice(0, columns * PATCH)
    rebuilt = objective.decoder(objective.encoder(views.corrupted[:1, :, own]).patches)
    expected = denormalise(objective.encoder.grid.join(rebuilt, columns * PATCH))[0, :, :shown]
    changed = picture.masked if pixels == "corrupted" else torch.ones_like(picture.masked)
    torch.testing.assert_close(
        picture.reconstruction, torch.where(changed, expected, picture.clean)
    )

    assert picture.pseudo_labels.shape == (32 // PATCH, columns)
    told = objective.teacher(views.clean[:1, :, own]).patches[0]
    distillation = objective.distillation
    vectors = (
        distillation.teacher.project(told, "local") @ distillation.teacher.prototypes_for("local").T
    )
    choice = (vectors - distillation.targets["local"].centre).argmax(dim=1)
    assert torch.equal(picture.pseudo_labels.flatten(), choice)
    assert len(choice.unique()) > 1 or len(choice) < 8


@torch.inference_mode()
def test_nothing_is_rebuilt_without_reconstruction_and_there_are_no_classes_without_a_local_loss():
    picture = only(("local", "global")).picture(batch(), STEP)
    assert picture.reconstruction is None
    assert picture.pseudo_labels is not None
    for losses in (("pixel",), ("pixel", "global")):
        assert only(losses).picture(batch(), STEP).pseudo_labels is None


@torch.inference_mode()
def test_drawing_changes_nothing():
    objective = begun(corruption=OWN)
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    objective.picture(batch(), STEP)
    objective.after_step(10)  # at the end of the run, when the teacher stands still
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())


def test_bfloat16_is_finite_and_near():
    objective, data = asit(views=3, local_crops=1, local_tokens="separate").float(), batch()
    objective.begin(plan())
    data.wave = data.wave.float()
    exact = objective(data, STEP)
    with torch.autocast("cpu", torch.bfloat16):
        rough = objective(data, STEP)
    rough.loss.backward()
    assert rough.loss.dtype == torch.float32
    for name in NAMES:
        torch.testing.assert_close(rough.metrics[name], exact.metrics[name], rtol=0.02, atol=0)
    assert all(
        parameter.grad.isfinite().all()
        for parameter in objective.parameters()
        if parameter.requires_grad
    )
