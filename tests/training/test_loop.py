import json
from dataclasses import replace
from itertools import count, product

import pytest
import torch
from clocks import tick
from filelock import FileLock
from tiny_runs import RAGGED, RATE, noises, settings, with_loader, write_noise
from torch.optim import Adam, AdamW
from torch.optim.optimizer import register_optimizer_step_pre_hook

from melpatch.audio.augment import Augment
from melpatch.checkpoint import load_weights
from melpatch.cli import main
from melpatch.data.loader import training_batches
from melpatch.data.manifest import Rejected, load_corpus, read_rejected
from melpatch.errors import CheckpointError, DataError, MelpatchError
from melpatch.objectives.base import ObjectiveOutput, Plan
from melpatch.objectives.classify import Classify
from melpatch.schedules import cosine, lr_factor
from melpatch.training import run as run_module
from melpatch.training import speed
from melpatch.training.config import TrainConfig, build
from melpatch.training.health import EmbeddingHealth
from melpatch.training.loop import evaluation_steps, fit
from melpatch.training.run import Run
from melpatch.training.start import load_run
from melpatch.training.trainer import make_optimizer


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return noises(tmp_path_factory.mktemp("noise"), labels=("a", "b", "c"))


def train(corpus, folder, config, *, prepare=lambda objective: None, **how):
    """Run, or go on with, a run in a folder; ``prepare`` may tamper with the objective. Return the progress."""
    run = Run.reopen(folder) if (folder / "config.toml").exists() else Run.create(folder, config)
    objective = build(run.config)
    prepare(objective)
    return fit(objective, corpus, run, **how)


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def steps_of(folder):
    return [line for line in lines(folder) if "loss" in line]


def published(folder):
    return load_weights(folder / "model.safetensors")


def equal(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


def copied(objective):
    return {name: value.clone() for name, value in objective.state_dict().items()}


def after_every_step(do):
    """Return what makes an objective call ``do(objective, step)`` between the optimiser's step and the log."""

    def prepare(objective):
        objective.after_step = lambda step: do(objective, step)

    return prepare


def losing(change):
    """Return what makes an objective change its output: ``change(output, step)`` returns the new loss."""

    def prepare(objective):
        forward = objective.forward

        def changed(batch, step):
            output = forward(batch, step)
            return ObjectiveOutput(change(output, step), output.weight, output.metrics)

        objective.forward = changed

    return prepare


# --------------------------------------------------------------------------------------------------------- one step


def keeping(gradients):
    """Return what makes an objective leave the gradients of its step in a dictionary, by name."""
    return after_every_step(
        lambda o, _: gradients.update((n, p.grad.clone()) for n, p in o.named_parameters())
    )


def one_step(corpus, folder, batch_size, accumulate):
    """Return gradient, micro-batch losses and weights, and the logged line, of a single unclipped step."""
    config = with_loader(
        settings(steps=1, accumulate=accumulate, grad_clip=None), batch_size=batch_size
    )
    gradients, outputs = {}, []

    def watch(objective):
        forward = objective.forward
        objective.forward = lambda *arguments: outputs.append(forward(*arguments)) or outputs[-1]
        keeping(gradients)(objective)

    train(corpus, folder, config, prepare=watch)
    vector = torch.cat([gradients[name].flatten() for name in sorted(gradients)])
    return vector, [(one.loss.item(), one.weight.item()) for one in outputs], steps_of(folder)[0]


def test_accumulated_batches_give_the_gradient_of_one_large_batch(tmp_path):
    corpus = noises(
        tmp_path / "noise", seconds=tuple(0.06 + 0.011 * number for number in range(32))
    )
    large, _, line = one_step(corpus, tmp_path / "1x32", 32, 1)
    small, parts, same_line = one_step(corpus, tmp_path / "4x8", 32, 4)
    assert len(parts) == 4
    assert len({weight for _, weight in parts}) > 1
    assert (small - large).norm() < 1e-5 * large.norm()
    assert same_line == pytest.approx(line, rel=1e-5)
    assert line["grad_norm"] == pytest.approx(large.norm().item(), rel=1e-5)
    unweighted = sum(loss for loss, _ in parts) / 4
    assert abs(unweighted - line["loss"]) > 100 * abs(same_line["loss"] - line["loss"])


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_only_longer_gradients_are_scaled_down(corpus, tmp_path, share):
    whole, _, line = one_step(corpus, tmp_path / "whole", 4, 1)
    limit = share * line["grad_norm"]
    norms = []

    def measure(objective, step):
        norms.append(torch.cat([p.grad.flatten() for p in objective.parameters()]).norm().item())

    train(
        corpus,
        tmp_path / "clipped",
        settings(steps=1, grad_clip=limit),
        prepare=after_every_step(measure),
    )
    assert norms == [pytest.approx(min(limit, whole.norm().item()), rel=1e-4)]
    assert steps_of(tmp_path / "clipped")[0]["grad_norm"] == pytest.approx(
        line["grad_norm"], rel=1e-5
    )


def test_each_tensors_own_gradient_is_scaled_down_if_asked(corpus, tmp_path):
    whole, clipped = {}, {}
    train(corpus, tmp_path / "whole", settings(steps=1, grad_clip=None), prepare=keeping(whole))
    limit = sorted(gradient.norm().item() for gradient in whole.values())[len(whole) // 2]
    config = settings(steps=1, grad_clip=limit, grad_clip_by="tensor")
    train(corpus, tmp_path / "clipped", config, prepare=keeping(clipped))
    for name, gradient in whole.items():
        scale = min(1.0, limit / (gradient.norm().item() + 1e-6))  # the published code's epsilon
        torch.testing.assert_close(clipped[name], scale * gradient)
    assert (
        steps_of(tmp_path / "clipped")[0]["grad_norm"]
        == steps_of(tmp_path / "whole")[0]["grad_norm"]
    )


def rates_of(corpus, folder, config, key):
    """Return what the optimiser used as learning rate ("lr") or "weight_decay", by step and name of the parameter."""
    seen = []

    def note(optimizer, *_):
        seen.append(
            {name: group[key] for group in optimizer.param_groups for name in group["names"]}
        )

    hook = register_optimizer_step_pre_hook(note)
    train(corpus, folder, config)
    hook.remove()
    return seen


def test_every_group_learns_at_its_share_of_the_scheduled_rate(corpus, tmp_path):
    config = settings(steps=10, lr_warmup=0.25, layer_decay=0.5, head_lr_scale=3.0, lr=0.01)
    seen = rates_of(corpus, tmp_path / "run", config, "lr")
    plain = {
        "schedule": "cosine",
        "warmup": 0.25,
        "floor": 0.0,
        "step_start": 0.5,
        "step_every": 0.1,
        "step_factor": 0.5,
    }
    base = [0.01 * lr_factor(step, 10, **plain) for step in range(10)]
    assert [line["lr"] for line in steps_of(tmp_path / "run")] == pytest.approx(base)
    for name, scale in (
        ("mask_embed", 3),
        ("encoder.transformer.norm.weight", 1),
        ("encoder.projection.bias", 1 / 8),
    ):
        assert [rates[name] for rates in seen] == pytest.approx([scale * rate for rate in base])


@pytest.mark.parametrize(
    ("start", "end", "decay_tokens"),
    [(0.04, 0.4, True), (0.0, 0.4, False), (0.3, 0.0, False), (0.1, None, True)],
)
def test_weight_decay_follows_its_cosine_where_there_is_any(
    corpus, tmp_path, start, end, decay_tokens
):
    config = settings(
        steps=5,
        weight_decay=start,
        weight_decay_end=end,
        decay_tokens=decay_tokens,
        layer_decay=0.5,
    )
    seen = rates_of(corpus, tmp_path / "run", config, "weight_decay")
    course = [cosine(start, start if end is None else end, step / 5) for step in range(5)]
    decayed = {
        "encoder.projection.weight": 1,
        "encoder.projection.bias": 0,
        "encoder.cls_token": decay_tokens,
    }
    for name, scale in decayed.items():
        assert [decays[name] for decays in seen] == pytest.approx(
            [scale * decay for decay in course]
        )


@pytest.mark.parametrize(("name", "kind"), [("adamw", AdamW), ("adam", Adam), ("amsgrad", Adam)])
def test_optimisers_go_by_their_names(name, kind):
    config = settings(optimizer=name, lr=3e-3, betas=(0.8, 0.9))
    optimizer = make_optimizer(build(config), config.train)
    assert type(optimizer) is kind
    for group in optimizer.param_groups:
        assert (group["lr"], group["betas"], group["amsgrad"]) == (
            3e-3,
            (0.8, 0.9),
            name == "amsgrad",
        )


def test_a_parameter_without_a_gradient_is_left_as_it_is(corpus, tmp_path):
    def prepare(objective):
        objective.idle = torch.nn.Parameter(torch.ones(3, 3))

    train(
        corpus, tmp_path / "run", settings(weight_decay=0.5, grad_clip_by="tensor"), prepare=prepare
    )
    assert torch.equal(published(tmp_path / "run")["idle"], torch.ones(3, 3))


# ------------------------------------------------------------------------------------------ what an objective is told


def beginning(do):
    """Return what makes an objective call ``do(objective, plan)`` as it begins."""

    def prepare(objective):
        begin = objective.begin
        objective.begin = lambda plan: (begin(plan), do(objective, plan))

    return prepare


def test_an_objective_is_told_the_plan_before_the_first_step(corpus, tmp_path):
    plans, config = [], settings(accumulate=2)
    start = copied(build(config))

    def note(objective, plan):
        plans.append(plan)
        assert equal(copied(objective), start)

    train(corpus, tmp_path / "run", config, prepare=beginning(note))
    assert plans == [Plan(steps=12, batch_size=4, seconds=0.4, longest_segment=0.4, accumulate=2)]


def test_a_folder_that_another_process_trains_in_is_left_alone(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "_PATIENCE", 0.0)
    with (
        FileLock(tmp_path / "run" / "lock"),
        pytest.raises(CheckpointError, match="another process trains in it"),
    ):
        train(corpus, tmp_path / "run", settings())
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    train(corpus, tmp_path / "again", settings())


def test_what_an_objective_warns_of_is_shown_and_logged(corpus, tmp_path, capsys):
    heard = []

    def prepare(objective):
        objective.warning = lambda metrics, step: (
            heard.append(metrics) or ("it fails" if len(heard) == 2 else None)
        )

    train(corpus, tmp_path / "run", settings(), prepare=prepare)
    assert heard == [
        {k: v for k, v in line.items() if k != "step"} for line in steps_of(tmp_path / "run")[3::4]
    ]
    assert [line for line in lines(tmp_path / "run") if "warning" in line] == [
        {"step": 8, "warning": "it fails"}
    ]
    assert "step 8: it fails\n" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------ what is kept


def test_without_a_score_the_last_weights_are_kept(corpus, tmp_path):
    last = {}
    train(
        corpus,
        tmp_path / "run",
        settings(),
        prepare=after_every_step(lambda o, _: last.update(copied(o))),
    )
    assert equal(published(tmp_path / "run"), last)


class Scores:
    """Gives scores in turn, and remembers the weights that each was given to."""

    def __init__(self, *scores):
        self.scores, self.states, self.training = scores, {}, []

    def __call__(self, objective, step):
        self.states[step] = copied(objective)
        self.training.append((objective.training, torch.is_grad_enabled()))
        return {"score": self.scores[len(self.states) - 1], "other": -float(step)}


@pytest.mark.parametrize(
    ("scores", "best"), [((0.1, 0.9, 0.5), 8), ((0.3, 0.3, 0.2), 4), ((-2.0, -1.0, -0.5), 12)]
)
def test_the_weights_of_the_best_score_are_kept_the_earlier_of_equals(
    corpus, tmp_path, scores, best
):
    evaluate = Scores(*scores)
    progress = train(corpus, tmp_path / "run", settings(), evaluate=evaluate, select="score")
    assert (progress.best, progress.best_step) == (max(scores), best)
    assert equal(published(tmp_path / "run"), evaluate.states[best])


def test_scores_are_measured_in_evaluation_mode_and_logged(corpus, tmp_path):
    evaluate = Scores(1.0, 2.0, 3.0)
    train(corpus, tmp_path / "run", settings(), evaluate=evaluate)
    assert evaluate.training == [(False, False)] * 3
    found = [line for line in lines(tmp_path / "run") if "score" in line]
    assert found == [{"step": step, "score": step / 4, "other": -step} for step in (4, 8, 12)]


def test_averaged_weights_are_the_mean_of_those_evaluated_late(corpus, tmp_path):
    evaluate = Scores(9.0, 0.0, 1.0, 2.0, 3.0, 4.0)
    config = settings(average_last=0.5, evaluations=6)
    train(corpus, tmp_path / "run", config, evaluate=evaluate, select="score")
    late = [evaluate.states[step] for step in (8, 10, 12)]
    kept = published(tmp_path / "run")
    assert kept.keys() == late[0].keys()
    for name, value in kept.items():
        torch.testing.assert_close(value, torch.stack([state[name] for state in late]).mean(dim=0))


def test_progress_and_speed_are_written(corpus, tmp_path, monkeypatch):
    tick(monkeypatch, speed)
    config = settings(steps=25, log_every=10, save_every=100)
    assert train(corpus, tmp_path / "run", config).step == 25
    assert [line["step"] for line in steps_of(tmp_path / "run")] == [1, 10, 20, 25]
    assert (tmp_path / "run" / "resume" / "step-000000025").is_dir()
    speeds = [
        json.loads(line) for line in (tmp_path / "run" / "speed.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in speeds] == [8, 17, 25]
    assert all(line["clips_per_second"] > 0 for line in speeds)
    # Every step takes one second by either clock.
    assert [line["cpu_seconds"] for line in speeds] == [8.0, 17.0, 25.0]
    assert [line["seconds"] for line in speeds] == [8.0, 17.0, 25.0]


def test_a_resumed_run_adds_to_what_it_has_cost(corpus, tmp_path, monkeypatch):
    tick(monkeypatch, speed)
    with pytest.raises(Killed):
        train(corpus, tmp_path, settings(), prepare=after_every_step(kill_at(9)))
    spent = {
        line["step"]: line
        for line in map(json.loads, (tmp_path / "speed.jsonl").read_text().splitlines())
    }
    (tmp_path / "speed.jsonl").write_text(
        json.dumps(spent[8] | {"cpu_seconds": 1000.0, "seconds": 2000.0}) + "\n"
    )
    train(corpus, tmp_path, settings())
    # Steps 9 to 12 are trained after the last save: 4 s by either clock.
    assert Run.speed(tmp_path)["cpu_seconds"] == 1004.0
    assert Run.speed(tmp_path)["seconds"] == 2004.0


def test_a_run_of_no_steps_holds_the_weights_that_it_starts_from(corpus, tmp_path):
    for _ in range(2):  # to go on with it changes nothing
        assert train(corpus, tmp_path, settings(steps=0), select="score", evaluate=score).step == 0
        assert equal(published(tmp_path), build(settings()).state_dict())
        assert lines(tmp_path) == [{"step": 0}]
    assert Run.speed(tmp_path) == {}


# -------------------------------------------------------------------------------------------------------- non-finite


def keys_of(corpus, config, step):
    batches = training_batches(corpus, config.loader, RATE, seed=config.seed, first_step=step)
    return next(batches).batch.keys.tolist()


@pytest.mark.parametrize(
    "bad",
    [
        lambda loss: loss * torch.nan,
        lambda loss: loss + torch.inf,
        lambda loss: (loss - loss.detach()).sqrt(),
    ],
    ids=["loss", "loss alone", "gradient alone"],
)
def test_a_step_that_is_not_finite_is_skipped_counted_and_told(corpus, tmp_path, capsys, bad):
    states = []
    prepare = losing(lambda output, step: bad(output.loss) if step in (3, 7) else output.loss)

    def watched(objective):
        prepare(objective)
        forward = objective.forward
        objective.forward = lambda *arguments: (
            states.append(copied(objective)) or forward(*arguments)
        )

    config = settings()
    progress = train(corpus, tmp_path / "run", config, prepare=watched)
    assert (progress.step, progress.skipped, progress.skipped_in_a_row) == (12, 2, 0)
    still = [step for step in range(11) if equal(states[step], states[step + 1])]
    assert still == [3, 7]
    assert (
        "2 steps of 12 changed nothing, since loss or gradient was not" in capsys.readouterr().err
    )
    skipped = [line for line in lines(tmp_path / "run") if "skipped" in line]
    assert skipped == [
        {"step": step + 1, "skipped": True, "clip_keys": keys_of(corpus, config, step)}
        for step in (3, 7)
    ]
    assert all(torch.isfinite(value).all() for value in published(tmp_path / "run").values())


def test_too_many_steps_in_a_row_that_are_not_finite_stop_the_run(corpus, tmp_path):
    prepare = losing(
        lambda output, step: output.loss * torch.nan if step in (0, 2, 4, 5, 6, 7) else output.loss
    )
    config = settings(nonfinite_limit=3)
    with pytest.raises(
        MelpatchError,
        match="no finite loss or gradient in 3 steps in a row; the clips' keys are in",
    ):
        train(corpus, tmp_path / "run", config, prepare=prepare)
    skipped = {
        line["step"]: line["clip_keys"] for line in lines(tmp_path / "run") if "skipped" in line
    }
    assert skipped == {step + 1: keys_of(corpus, config, step) for step in (0, 2, 4, 5, 6)}


# -------------------------------------------------------------------------------------------------------- unreadable


def damaged(tmp_path, count):
    corpus = noises(tmp_path / "noise")
    for clip in corpus.clips[:count]:
        clip.path.write_bytes(b"this is no sound")
    return corpus, {str(clip.path) for clip in corpus.clips[:count]}


def test_one_unreadable_clip_is_left_out_listed_and_told(tmp_path, capsys):
    corpus, paths = damaged(tmp_path, 1)
    assert train(corpus, tmp_path / "run", settings()).step == 12
    assert "clips left out because they could not be read: 1; see" in capsys.readouterr().err
    assert {one.path for one in read_rejected(tmp_path / "run" / "rejected.csv")} == paths


def test_too_many_unreadable_clips_stop_the_run(tmp_path):
    corpus, paths = damaged(tmp_path, 2)
    with pytest.raises(
        DataError, match=r"more than 1 of 12 clips cannot be read, .* see .*rejected\.csv"
    ):
        train(corpus, tmp_path / "run", settings())
    assert {one.path for one in read_rejected(tmp_path / "run" / "rejected.csv")} == paths


def test_segments_of_one_file_are_as_many_unreadable_clips(tmp_path):
    """A run whose few long recordings are gone must not end as if it had trained."""
    write_noise(tmp_path / "long.wav", 30 * 0.4, 1)
    rows = [f"long.wav,{number * 0.4:.1f},0.4" for number in range(30)]
    (tmp_path / "list.csv").write_text("\n".join(["path,start,duration", *rows]))
    corpus = load_corpus([tmp_path / "list.csv"])
    (tmp_path / "long.wav").unlink()
    with pytest.raises(DataError, match=r"more than 1 of 30 clips cannot be read"):
        train(corpus, tmp_path / "run", settings())


def test_how_many_may_be_unreadable_is_a_setting(tmp_path):
    corpus, _ = damaged(tmp_path, 4)
    config = with_loader(settings(), max_bad_share=4 / 12)
    assert train(corpus, tmp_path / "run", config).step == 12


def test_a_step_without_a_readable_clip_changes_nothing(tmp_path):
    def prepare(objective):
        objective.warning = lambda metrics, step: (
            f"a loss of {metrics['loss']}"
        )  # there is none to judge

    corpus, _ = damaged(tmp_path, 12)
    config = with_loader(settings(), max_bad_share=1.0)
    train(corpus, tmp_path / "run", config, prepare=prepare)
    assert equal(published(tmp_path / "run"), build(config).state_dict())


def test_files_that_were_no_clips_from_the_start_do_not_count(tmp_path):
    corpus, _ = damaged(tmp_path, 1)
    run = Run.create(tmp_path / "run", settings())
    run.reject([Rejected(f"{number}.wav", "is no sound") for number in range(5)])
    assert fit(build(run.config), corpus, run).step == 12
    assert len(read_rejected(tmp_path / "run" / "rejected.csv")) == 6


# ------------------------------------------------------------------------------------------------------ exact resume

RUNS = {
    "ssast": settings(),
    "ssast in bf16": settings(precision="bf16-mixed", accumulate=2),
    "adam": settings(optimizer="adam", grad_clip=None),
    "amsgrad": settings(optimizer="amsgrad"),
    "dino": settings(
        lr_schedule="dino", weight_decay_end=0.4, decay_tokens=True, grad_clip_by="tensor"
    ),
    "classify": replace(
        settings(average_last=0.5, evaluations=6, layer_decay=0.7),
        objective=Classify.Config(
            label_smoothing=0.1,
            augment=Augment.Config(
                mixup_rate=0.5,
                roll=1.0,
                gain_db=6.0,
                noise_snr_db=(5.0, 20.0),
                freq_mask=8,
                time_mask=8,
            ),
        ),
        encoder=replace(settings().encoder, drop_path=0.5),
        labels=("a", "b", "c"),
    ),
}


def score(objective, step):
    """Return a number that hangs on all weights, and is best, before weights are averaged, at step 4."""
    norm = torch.stack([parameter.double().norm() for parameter in objective.parameters()]).sum()
    return {"score": step % 5 + 1e-3 * norm.item()}


def finish(corpus, folder, name, **how):
    select = "score" if name == "classify" else None
    return train(corpus, folder, RUNS[name], select=select, **({"evaluate": score} | how))


def left(folder):
    """Return all that a resumed run must leave as an uninterrupted one does, to the byte."""
    names = ["metrics.jsonl", "model.safetensors", "resume/step-000000012/model.safetensors"]
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def uninterrupted(corpus, tmp_path_factory):
    """Return, by name of the run, what it leaves when nothing happens."""
    found = {}
    for name in RUNS:
        folder = tmp_path_factory.mktemp("whole")
        finish(corpus, folder, name)
        found[name] = left(folder)
    return found


def kill_at(wanted):
    def kill(objective, step):
        if step == wanted:
            raise Killed

    return kill


STOPS = [(0,), (2,), (3,), (4,), (7, 9), (11,), (1, 2, 5, 10)]
OTHERS = ("ssast in bf16", "adam", "amsgrad", "dino")
STOPPED = [*((name, STOPS[-1]) for name in OTHERS), *product(["ssast", "classify"], STOPS)]


@pytest.mark.parametrize(("name", "stops"), STOPPED, ids=str)
def test_a_run_stopped_after_any_step_goes_on_as_if_it_had_not_been(
    corpus, tmp_path, uninterrupted, name, stops
):
    for stop in stops:
        with pytest.raises(Killed):
            finish(corpus, tmp_path, name, prepare=after_every_step(kill_at(stop)))
    finish(corpus, tmp_path, name)
    assert left(tmp_path) == uninterrupted[name]


@pytest.mark.parametrize(
    ("name", "stop"), [("ssast", 8), ("classify", 4), ("classify", 8), ("classify", 12)]
)
def test_a_run_stopped_in_an_evaluation_goes_on_as_if_it_had_not_been(
    corpus, tmp_path, uninterrupted, name, stop
):
    def stopped(objective, step):
        kill_at(stop)(objective, step)
        return score(objective, step)

    with pytest.raises(Killed):
        finish(corpus, tmp_path, name, evaluate=stopped)
    finish(corpus, tmp_path, name)
    assert left(tmp_path) == uninterrupted[name]


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("name", "write", "number"),
    [
        ("ssast", "save", 1),
        ("ssast", "save", 2),
        ("classify", "save", 2),
        ("classify", "publish", 1),
    ],
)
def test_a_run_stopped_at_a_save_goes_on_as_if_it_had_not_been(
    corpus, tmp_path, uninterrupted, name, write, number, done, monkeypatch
):
    """Before the files are written or right after; with the last state those of the end are, averaged or not."""
    real, calls = getattr(Run, write), count()

    def stopped(run, *args):
        end = next(calls) == number
        if not end or done:
            real(run, *args)
        if end:
            raise Killed

    monkeypatch.setattr(Run, write, stopped)
    with pytest.raises(Killed):
        finish(corpus, tmp_path, name)
    monkeypatch.undo()
    finish(corpus, tmp_path, name)
    assert left(tmp_path) == uninterrupted[name]


def test_weights_that_are_gone_on_with_are_not_those_an_objective_begins_with(
    corpus, tmp_path, uninterrupted
):
    def spoil(objective, _):
        with torch.no_grad():
            objective.mask_embed.zero_()

    with pytest.raises(Killed):
        finish(corpus, tmp_path, "ssast", prepare=after_every_step(kill_at(6)))
    finish(corpus, tmp_path, "ssast", prepare=beginning(spoil))
    assert left(tmp_path) == uninterrupted["ssast"]


def test_a_finished_run_is_left_as_it_is(corpus, tmp_path, uninterrupted):
    for _ in range(2):
        finish(corpus, tmp_path, "classify")
    assert left(tmp_path) == uninterrupted["classify"]


def test_workers_do_not_change_a_run(corpus, tmp_path, uninterrupted):
    config, stopped = with_loader(RUNS["ssast"], workers=1), after_every_step(kill_at(6))
    with pytest.raises(Killed):
        train(corpus, tmp_path, config, prepare=stopped, evaluate=score)
    finish(corpus, tmp_path, "ssast")
    assert left(tmp_path) == uninterrupted["ssast"]


def test_skipped_steps_and_bad_clips_survive_an_interruption(tmp_path):
    def run(folder, stop=None):
        corpus, _ = damaged(tmp_path, 1)
        spoil = losing(
            lambda output, step: output.loss * torch.nan if step in (5, 6, 8) else output.loss
        )

        def prepare(objective):
            spoil(objective)
            objective.after_step = lambda step: kill_at(stop)(objective, step)

        return train(corpus, folder, settings(), prepare=prepare)

    whole = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "stopped", stop=9)
    assert run(tmp_path / "stopped") == whole
    assert whole.skipped == 3
    assert left(tmp_path / "stopped") == left(tmp_path / "whole")


# ------------------------------------------------------------------------------------------------- an own objective

OWN = '''
from dataclasses import dataclass

import torch
from filelock import FileLock

from melpatch.objectives.base import Objective, ObjectiveOutput


class Loudness(Objective):
    """Tell how loud a clip is from its tokens."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings."""

        power: float = 1.0
        """Of the loudness."""

    def __init__(self, config, front_end, encoder, labels=(), seed=0):
        super().__init__(config, front_end, encoder, labels, seed)
        self.head = torch.nn.Linear(encoder.embed_dim, 1)

    def forward(self, batch, step):
        spectrogram, valid = self.features(batch)
        told = self.head(self.encoder(spectrogram, valid).patches.mean(dim=1))[:, 0].float()
        error = (told - spectrogram.mean(dim=(1, 2)) ** self.config.power).square().mean()
        return ObjectiveOutput(error, torch.tensor(float(len(batch))))
'''


def test_an_objective_of_ones_own_trains_under_its_name(tmp_path, monkeypatch, capsys):
    (tmp_path / "ownlab.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    for number, seconds in enumerate(RAGGED):
        write_noise(tmp_path / "noise" / f"{number}.wav", seconds, number)
    flags = "--size nano --steps 6 --batch-size 4 --seconds 0.4 --workers 0 --log-every 1 --precision 32-true"
    words = [
        "pretrain",
        "ownlab:Loudness",
        "--data",
        str(tmp_path / "noise"),
        "--out",
        str(tmp_path / "run"),
    ]
    assert (
        main([*words, *flags.split(), "--front-end.sample-rate", "8000", "--objective.power", "2"])
        == 0
    )
    config, objective = load_run(tmp_path / "run")
    assert type(objective).__qualname__ == "Loudness"
    assert config.objective.power == 2.0
    losses = [line["loss"] for line in steps_of(tmp_path / "run")]
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    assert "Loudness with" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------ small pieces


@pytest.mark.parametrize("total", [1, 2, 9, 10, 11, 1000])
@pytest.mark.parametrize("evaluations", [1, 3, 10])
def test_evaluations_are_spread_evenly_up_to_the_last_step(total, evaluations):
    due = sorted(evaluation_steps(TrainConfig(evaluations=evaluations), total))
    assert due[-1] == total
    assert len(due) == min(total, evaluations)
    gaps = [after - before for before, after in zip([0, *due], due, strict=False)]
    assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("lr", [1e2, 1e10, 1e18, 1e30, 1e38])
def test_a_run_that_diverges_ends_with_the_learning_rate_at_whatever_rate(tmp_path, lr):
    corpus = noises(tmp_path / "noise")
    config = settings(steps=12, lr=lr, lr_warmup=0.0, evaluations=3, nonfinite_limit=4)
    run = Run.create(tmp_path / "run", config)
    objective = build(config)
    health = EmbeddingHealth(corpus, config, objective)
    with pytest.raises(MelpatchError, match="lower --lr"):
        fit(objective, corpus, run, evaluate=health)
    published = tmp_path / "run" / "model.safetensors"
    if published.exists():
        assert all(value.isfinite().all() for value in load_weights(published).values())
