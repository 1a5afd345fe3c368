"""Runs of ASiT: from other weights, stopped and gone on with, and on two processes."""

from dataclasses import replace

import pytest
import torch
from lightning_fabric import Fabric
from objectives.tiny_asit import HEADS, asit, batch, plan
from tiny_runs import noises, settings
from two_processes import fabric_of, in_both

from melpatch.distributed import on_rank_zero
from melpatch.objectives.asit import ASiT
from melpatch.training.config import TrainConfig, build
from melpatch.training.loop import fit
from melpatch.training.run import Run
from melpatch.training.start import load_run
from melpatch.training.stepping import training_step
from melpatch.training.trainer import Trainer, make_optimizer
from melpatch.workflows.initialize import copy_encoder


class Killed(BaseException):
    """Stands for the end of the process."""


RUN = replace(
    settings(
        accumulate=2,
        lr_schedule="dino",
        weight_decay_end=0.4,
        decay_tokens=True,
        grad_clip=0.5,
        grad_clip_by="tensor",
    ),
    encoder=replace(settings().encoder, drop_path=0.5),
    objective=ASiT.Config(
        local_crops=1,
        local_crop_seconds=0.1,
        decoder=(16,),
        distillation=replace(HEADS, freeze_prototypes=0.4, momentum=None),
    ),
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return noises(tmp_path_factory.mktemp("noise"))


def train(corpus, folder, stop=None):
    """Run, or go on with, the run in a folder; be killed after a step's teacher has moved."""
    run = (
        Run.reopen(folder)
        if on_rank_zero((folder / "config.toml").exists)
        else Run.create(folder, RUN)
    )
    objective = build(run.config)
    move = objective.after_step

    def after_step(at):
        move(at)
        if at == stop:
            raise Killed

    objective.after_step = after_step
    fit(objective, corpus, run)


@pytest.fixture(scope="module")
def uninterrupted(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    train(corpus, folder)
    return folder


@pytest.mark.parametrize("stops", [(0,), (5, 9), (11,)], ids=str)
def test_a_run_stopped_after_any_step_goes_on_as_if_it_had_not_been(
    corpus, tmp_path, uninterrupted, stops
):
    for stop in stops:
        with pytest.raises(Killed):
            train(corpus, tmp_path, stop)
    train(corpus, tmp_path)
    for name in ("metrics.jsonl", "model.safetensors", "resume/step-000000012/model.safetensors"):
        assert (tmp_path / name).read_bytes() == (uninterrupted / name).read_bytes()


def test_a_run_that_starts_from_another_has_its_teacher_as_both_student_and_teacher(uninterrupted):
    _, source = load_run(uninterrupted)
    objective = build(replace(RUN, seed=1))
    copy_encoder(objective, uninterrupted)
    objective.begin(plan(0.4))
    for name, value in source.teacher.state_dict().items():
        assert torch.equal(objective.encoder.state_dict()[name], value)
        assert torch.equal(objective.teacher.state_dict()[name], value)
    student = source.encoder.state_dict()
    assert not all(
        torch.equal(value, student[name]) for name, value in source.teacher.state_dict().items()
    )


# ------------------------------------------------------------------------------------------------------ two processes

STEPS = 4
TRAIN = TrainConfig(steps=STEPS, accumulate=2, lr=0.01, grad_clip=0.5, precision="32-true")
FRAMES = [
    (48, 20, 31, 5),
    (9, 30, 24),
    (12, 48),
    (40, 40, 17, 1),
    (25, 3),
    (33, 8, 8),
    (48, 7, 30, 30),
    (21, 22),
]


def trained(fabric, batches):
    """Do the steps on these batches of each; return what was logged, and the state after each step."""
    objective = asit(local_crops=1, distillation=replace(HEADS, freeze_prototypes=0.3)).float()
    objective.begin(plan()._replace(steps=STEPS))
    optimizer = make_optimizer(objective, TRAIN)
    module, wrapped = fabric.setup(objective, optimizer)
    trainer = Trainer(fabric, objective, module, wrapped, replace(RUN, train=TRAIN), STEPS)
    found = []
    for at in range(STEPS):
        record = training_step(trainer, batches[at], at)
        found.append(
            (record, {name: value.clone() for name, value in objective.state_dict().items()})
        )
    return found


def sound(number):
    one = batch(FRAMES[number])
    one.wave, one.keys = one.wave.float() * (1 + 0.1 * number), one.keys + 10 * number
    return one


def process(rank, folder):
    """Be one of two that take turns at the batches."""
    fabric = fabric_of("32-true", find_unused_parameters=True)  # frozen prototypes
    assert (fabric.global_rank, fabric.world_size) == (rank, 2)
    return trained(fabric, [[sound(2 * at + rank)] for at in range(STEPS)])


def test_two_processes_learn_bit_for_bit_what_one_learns_from_accumulated_batches(
    tmp_path, monkeypatch
):
    both = in_both(process, tmp_path, monkeypatch)
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    alone = trained(fabric, [[sound(2 * at), sound(2 * at + 1)] for at in range(STEPS)])
    for at, (record, state) in enumerate(alone):
        for told, weights in (both[0][at], both[1][at]):
            assert told == record
            assert [
                name for name, value in weights.items() if not torch.equal(value, state[name])
            ] == []
    prototypes = [state["distillation.student.prototypes.local.direction"] for _, state in alone]
    assert torch.equal(prototypes[0], prototypes[1])  # frozen
    assert not torch.equal(prototypes[1], prototypes[2])
