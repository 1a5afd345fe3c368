"""Steps in a row of our objective, loop and optimiser, against numbers of the official ASiT training loop."""

import math
from dataclasses import replace

import pytest
import torch
from golden.official_asit import (
    COLUMNS,
    CROP,
    close,
    config,
    corruption_masks,
    draw,
    golden,
    load_official,
    of_teacher,
    official_objective,
    ours,
    spectrogram,
    temperature,
)
from lightning_fabric import Fabric
from torch.nn.utils import clip_grad_norm_

from melpatch.data.clip import Batch
from melpatch.objectives.asit import Views
from melpatch.objectives.base import Plan
from melpatch.training import stepping
from melpatch.training.stepping import training_step
from melpatch.training.trainer import Trainer, make_optimizer

LONG = 10**9  # steps of a run, so that its schedules stand still in three steps
# All of them hold in both precisions; for time, each is run in one, and two steps in single.
CASES = {
    ("c23", "same"): torch.float64,
    ("c23", "own"): torch.float32,
    ("c23", "own_sharp"): torch.float32,
    ("c23", "own_clip"): torch.float32,
    ("c24", "same"): torch.float32,
    ("c24", "own"): torch.float32,
    ("c24", "own_sharp"): torch.float32,
    ("c24", "own_clip"): torch.float32,
    ("c24", "own_locals"): torch.float32,
}


def shown(number, crops, dtype):
    """The views of a step: the first clip's rectangles are zero, in the second's stands the first clip."""
    clean = torch.cat(
        [spectrogram(f"step/step{number}/view{view}", 16 * COLUMNS, dtype) for view in (1, 2)]
    )
    hidden, zeros = corruption_masks(), torch.zeros_like(clean[0])
    written = torch.stack([zeros, clean[0], zeros, clean[2]])
    pieces = [spectrogram(f"step/step{number}/local{crop}", CROP, dtype) for crop in range(crops)]
    short = (torch.cat(pieces), None) if pieces else None
    return Views(
        clean, torch.where(hidden, written, clean), hidden, torch.ones_like(hidden), None, short
    )


def prepared(release, variant, dtype):
    """The objective at the start of a variant, with its schedules standing still."""
    gain, tau = variant["weight_gain"], temperature(release, variant["epoch"])
    objective = official_objective(release, dtype, gain)
    distillation = objective.distillation
    fixed = {"momentum": golden("step.json")["ema_momentum"], "teacher_temperature": (tau, tau)}
    freeze = distillation.config.freeze_prototypes if variant["epoch"] == 0 else 0.0
    distillation.config = replace(distillation.config, freeze_prototypes=freeze, **fixed)
    objective.begin(Plan(steps=LONG, batch_size=2, seconds=10.0, longest_segment=10.0))
    if variant["teacher_own_weights"]:
        load_official(objective, release, gain, "teacher.")
    for part, target in distillation.targets.items() if variant["centres_drawn"] else ():
        target.centre.copy_(0.01 * draw(f"step/center_{part}", (1, target.classes))[0])
    objective.views = lambda batch, number: shown(number, variant["local_crops"], dtype)
    return objective


def training(objective, release, clip):
    """The objective set up for training, with the recipe's optimiser at the rates of the golden case."""
    fixed, recipe = golden("step.json"), config(release)
    rates = {
        "lr": fixed["lr"],
        "weight_decay": fixed["weight_decay"],
        "weight_decay_end": None,
        "grad_clip": clip,
    }
    recipe = replace(
        recipe, train=replace(recipe.train, lr_schedule="constant", lr_warmup=0.0, **rates)
    )
    fabric, optimizer = (
        Fabric(accelerator="cpu", devices=1),
        make_optimizer(objective, recipe.train),
    )
    module, wrapped = fabric.setup(objective, optimizer)
    return Trainer(fabric, objective, module, wrapped, recipe, LONG)


def norm(tensors):
    return math.hypot(
        *(
            float(torch.linalg.vector_norm(tensor.detach(), dtype=torch.float64))
            for tensor in tensors
        )
    )


def total(tensors):
    return sum(float(tensor.sum(dtype=torch.float64)) for tensor in tensors)


class Measured:
    """Our parameters by their official key, and what the official loop measures of each."""

    def __init__(self, release, objective):
        shapes = {
            entry["key"]: entry["shape"] for entry in golden("keys.json")["small_config"][release]
        }
        named = dict(objective.named_parameters())
        self.student, self.teacher = {}, {}
        for key in golden("step.json")[release]["parameter_order"]:
            names = list(ours(key, torch.empty(shapes[key], device="meta")))
            if names:
                self.student[key] = [named[name] for name in names]
            if names and of_teacher(names[0]):
                self.teacher[key] = [named[of_teacher(name)] for name in names]
        self.key = {
            parameter: key for key, parameters in self.student.items() for parameter in parameters
        }
        self.start = {parameter: parameter.detach().clone() for parameter in objective.parameters()}
        self.before, self.after = {}, {}

    def clip(self, parameter, limit):
        """Clip a gradient, and note its norm before and after.

        The positions of class token and patches are one tensor in the official code and two in ours, each of which the
        loop lets be as long as the limit. Here they are clipped as one, so that the rest can be compared.
        """
        key = self.key[parameter]
        tensors = self.student[key]
        if parameter is tensors[-1]:
            self.before[key] = norm([tensor.grad for tensor in tensors])
            clip_grad_norm_(tensors, limit)
            self.after[key] = norm([tensor.grad for tensor in tensors])

    def arrays(self, optimizer):
        """Return the golden arrays by name, each by key."""

        def moved(tensors):
            return [tensor.detach() - self.start[tensor] for tensor in tensors]

        state, student, teacher = optimizer.state, self.student.items(), self.teacher.items()
        trained = [
            (key, [state[tensor] for tensor in tensors])
            for key, tensors in student
            if tensors[0] in state
        ]
        return {
            "grad_norm_before_clip": self.before,
            "grad_norm_after_clip": self.after,
            "student_norm": {key: norm(tensors) for key, tensors in student},
            "student_moved_norm": {key: norm(moved(tensors)) for key, tensors in student},
            "student_moved_sum": {key: total(moved(tensors)) for key, tensors in student},
            "teacher_norm": {key: norm(tensors) for key, tensors in teacher},
            "teacher_moved_norm": {key: norm(moved(tensors)) for key, tensors in teacher},
            "adam_first_moment_norm": {
                key: norm([one["exp_avg"] for one in states]) for key, states in trained
            },
            "adam_second_moment_sum": {
                key: total([one["exp_avg_sq"] for one in states]) for key, states in trained
            },
        }


def absent(name, key, variant):
    """Whether we have no such number.

    Prototypes' gains that are fixed at 1 are no parameter, the teacher has no decoder, and what is frozen gets no
    gradient, where the official code drops it after clipping.
    """
    frozen = (
        variant == "same" and "last_layer" in key and not name.startswith(("student", "teacher"))
    )
    decoder = name.startswith("teacher") and key.startswith("head_recons")
    return frozen or decoder or (key.startswith("head_cls") and key.endswith("weight_g"))


def compare(name, found, release, variant, dtype):
    array, order = name.split("/")[-1], golden("step.json")[release]["parameter_order"]
    assert {key for key in order if key not in found} == {
        key for key in order if absent(array, key, variant)
    }
    # A bias of keys has no gradient; in float32 the first steps turn its rounding into movements.
    weights = array.startswith(("student", "teacher"))
    noisy = [dtype == torch.float32 and weights and key.endswith("attn.qkv.bias") for key in order]
    where = torch.tensor([key in found for key in order]) & ~torch.tensor(noisy)
    close(
        name,
        torch.tensor([found.get(key, -1.0) for key in order], dtype=torch.float64),
        dtype,
        where,
    )


@pytest.mark.parametrize(("release", "variant"), CASES, ids=[" ".join(case) for case in CASES])
def test_steps_in_a_row(release, variant, monkeypatch):
    dtype = CASES[release, variant]
    settings = next(
        one for one in golden("step.json")[release]["variants"] if one["name"] == variant
    )
    objective, outputs = prepared(release, settings, dtype), []
    objective.register_forward_hook(lambda module, given, output: outputs.append(output))
    measured, trainer = (
        Measured(release, objective),
        training(objective, release, settings["clip"]),
    )
    monkeypatch.setattr(
        stepping,
        "clip_each",
        lambda parameters, limit: [measured.clip(one, limit) for one in parameters],
    )
    batch = Batch(torch.zeros(2, 1), torch.ones(2, dtype=torch.int64), torch.arange(2))
    for number in range(3 if dtype == torch.float64 else 2):
        training_step(trainer, [batch], number)
        name, losses = f"{release}/step/{variant}/step{number}", outputs[-1]
        told = [losses.metrics[part].detach() for part in ("global", "local", "pixel")]
        close(f"{name}/losses", torch.stack([*told, losses.loss.detach()]), dtype)
        for array, found in measured.arrays(trainer.optimizer).items():
            compare(f"{name}/{array}", found, release, variant, dtype)
        centres = [
            objective.distillation.targets[part].centre.norm() for part in ("global", "local")
        ]
        close(f"{name}/center_norms_after", torch.stack(centres), dtype)
