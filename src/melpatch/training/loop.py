"""The training loop: one for pretraining and fine-tuning, written out.

Order of a step: learning rate and weight decay, losses and gradients over the accumulated batches of all processes,
clip, optimiser, ``after_step``, log, evaluate, save. Whatever is random in a step is a function of (seed, clip key,
step), so a run that was interrupted anywhere goes on as if it had not been, on any number of processes.
"""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from itertools import chain, islice
from signal import Signals
from typing import Any

import torch
from torch.optim import Optimizer

from melpatch import distributed
from melpatch.data.clip import Batch
from melpatch.data.loader import LoadedBatch, training_batches
from melpatch.data.manifest import Corpus, Rejected
from melpatch.encoders.base import Encoder, TokenEncoder
from melpatch.errors import DataError, Interrupted, MelpatchError, report_lost_workers
from melpatch.objectives.base import Objective, Plan
from melpatch.progress import Bar, bar, notice
from melpatch.training import stopping
from melpatch.training.config import TrainConfig
from melpatch.training.feeding import on_device
from melpatch.training.launching import launch, memory_gib
from melpatch.training.run import Run
from melpatch.training.sharding import gathered, load_averages_into, load_weights_into, whole
from melpatch.training.start import plan
from melpatch.training.states import Progress, State
from melpatch.training.stepping import Work, make_optimizer, step
from melpatch.training.tracking import Tracker

Evaluate = Callable[[Objective, int], dict[str, float]]


def fit(
    objective: Objective,
    corpus: Corpus,
    run: Run,
    *,
    evaluate: Evaluate | None = None,
    select: str | None = None,
    tracker: Tracker | None = None,
) -> Progress:
    """Train an objective on a corpus until the run's last step, from wherever the run folder stands.

    Args:
        objective: what to train; it ends with its last weights, the run folder with the ones to use.
        corpus: the training clips.
        run: an open run folder.
        evaluate: called ``train.evaluations`` times with the objective in evaluation mode; returns numbers to log.
        select: name of the evaluated number whose best step's weights are kept (higher is better); None keeps the last.
        tracker: where curves and pictures go besides metrics.jsonl.

    Raises:
        ConfigError: the objective cannot be trained so.
        DataError: too many clips proved unreadable.
        CheckpointError: another process trains in the run folder, or a save failed; for lack of space only the last one
            does.
        MelpatchError: too many steps in a row had no finite loss.
        Interrupted: a signal asked for an end, be it in the last step; the run is saved.
    """
    config = run.config
    work, optimizer = set_up(objective, run, plan(config, corpus), tracker or Tracker())
    with run.alone(), stopping.heeded():
        _restore(work, optimizer)  # now that the weights are on their device
        with (
            report_lost_workers(),
            run.states,
            closing(_batches(work, corpus)) as batches,
            bar(work.total, "training", done=work.progress.step) as shown,
        ):
            while work.progress.step < work.total and not work.signal:
                with _clocked(work):
                    loaded = list(islice(batches, config.train.accumulate))
                    rejected = [one for part in loaded for one in part.rejected]
                    micro = _taking_part(work, loaded)
                    done = step(work, micro, news=bool(rejected or stopping.requested()))
                if (
                    done.news or distributed.world_size() == 1
                ):  # one that is alone need not agree with others in the step
                    _hear(work, corpus, rejected)
                _after(work, done.record, evaluate, select, micro, shown)
        return _finish(work)


def set_up(
    objective: Objective, run: Run, planned: Plan, tracker: Tracker
) -> tuple[Work, Optimizer]:
    """Return everything that the first step of a run touches, on its device, and the optimiser itself."""
    config = run.config.train
    fabric = launch(config)
    objective.begin(planned)
    if config.compile:
        notice("the encoder is compiled at the first step, which may take minutes")
        compile_encoders(objective)
    module = fabric.setup_module(objective)
    optimizer = make_optimizer(objective, config)
    wrapped: Any = fabric.setup_optimizers(optimizer)
    return Work(fabric, objective, module, wrapped, run, planned.steps, tracker), optimizer


def compile_encoders(objective: Objective) -> None:
    """Have torch compile what an objective's encoders compute, a teacher's too, when they are first used."""
    for module in objective.modules():
        if isinstance(module, Encoder):
            method = "encode_tokens" if isinstance(module, TokenEncoder) else "forward"
            setattr(module, method, torch.compile(getattr(module, method)))


def _batches(work: Work, corpus: Corpus) -> Generator[LoadedBatch, None, None]:
    """Yield the batches of this process, on its device, from the run's next step on."""
    config = work.run.config
    batches = training_batches(
        corpus,
        config.loader,
        work.objective.front_end.sample_rate,
        seed=config.seed,
        first_step=work.progress.step,
        accumulate=config.train.accumulate,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        with_labels=work.objective.needs_labels,
    )
    return on_device(batches, work.fabric.device)


def _taking_part(work: Work, loaded: list[LoadedBatch]) -> list[Batch]:
    """Return the batches to learn from; of several processes each takes part in every one, if without a clip."""
    if distributed.world_size() == 1:
        return [part.batch for part in loaded if part.batch is not None]
    config, objective = work.run.config, work.objective
    samples = round(config.loader.seconds * objective.front_end.sample_rate)
    nothing = Batch.empty(samples, len(config.labels) if objective.needs_labels else None).to(
        work.fabric.device
    )
    return [nothing if part.batch is None else part.batch for part in loaded]


def _hear(work: Work, corpus: Corpus, rejected: list[Rejected]) -> None:
    """Note what any process has to tell: clips that it could not read, and a signal that asked for an end.

    Raises:
        DataError: too many clips cannot be read.
    """
    run, share = work.run, work.run.config.loader.max_bad_share
    told = distributed.all_gather_objects((rejected, stopping.requested()))
    work.signal = max(signal for _, signal in told)
    new = list(chain.from_iterable(rejects for rejects, _ in told))
    run.reject(new)
    limit, names = (
        max(1, int(share * len(corpus.clips))),
        {clip.location for clip in corpus.clips} if new else set(),
    )
    if len(names & run.rejected.keys()) > limit:
        raise DataError(
            f"{corpus.name}: more than {limit} of {len(corpus.clips)} clips cannot be read, the last being "
            f"{new[-1].path} ({new[-1].reason}); see {run.folder / 'rejected.csv'}, mend or drop them, "
            "or raise --max-bad-share"
        )


def _restore(work: Work, optimizer: Optimizer) -> None:
    """Go on from the newest state; of a run of no steps, make the weights that it starts from the ones to use."""
    run = work.run
    state = run.restore()
    if state is not None:
        load_weights_into(work.objective, state.model)
        load_averages_into(optimizer, state.optimizer)
        work.progress = state.progress
        work.average = {name: value.to(work.fabric.device) for name, value in state.average.items()}
    before = run.speed(run.folder)
    work.seconds = before.get("seconds", 0.0)
    work.cpu_seconds = (
        before.get("cpu_seconds", 0.0) if distributed.is_rank_zero() else 0.0
    )  # they are summed over all
    if not work.total and state is None:
        run.log({"step": 0})
        with run.states:
            _save(work, None)


@contextmanager
def _clocked(work: Work) -> Iterator[None]:
    """Add what the body takes to the seconds spent."""
    cpu, clock = time.process_time(), time.monotonic()
    yield
    work.cpu_seconds += time.process_time() - cpu
    work.seconds += time.monotonic() - clock


def _after(
    work: Work,
    record: dict[str, float],
    evaluate: Evaluate | None,
    select: str | None,
    micro: list[Batch],
    shown: Bar,
) -> None:
    """Count, log, evaluate and save after a step."""
    progress, config, run = work.progress, work.run.config.train, work.run
    progress.step += 1
    if progress.skipped_in_a_row:
        _note_skipped(work, micro)
    last = progress.step == work.total
    if progress.step % config.log_every == 0 or last or progress.step == 1:
        run.log({"step": progress.step, **record})
        work.tracker.scalars(record, progress.step)
    rate = (progress.step - shown.before) / max(time.monotonic() - shown.start, 1e-9)
    per_second = rate * run.config.loader.batch_size
    loss = record.get("loss", float("nan"))
    shown.advance(1, loss=loss, clips=f"{per_second:.1f}/s", memory=f"{memory_gib():.1f} GiB")
    if progress.step == shown.before + 5 and work.total > 50:
        minutes = (work.total - progress.step) / rate / 60
        notice(
            f"{per_second:.1f} clips/s; the remaining {work.total - progress.step} steps take about {minutes:.1f} min"
        )
    due = evaluation_steps(config, work.total)
    saving = progress.step % config.save_every == 0 or last or bool(work.signal)
    if progress.step in due or saving:
        cpu_seconds = sum(distributed.all_gather_objects(work.cpu_seconds))
        spent = {"cpu_seconds": round(cpu_seconds, 3), "seconds": round(work.seconds, 3)}
        speed = {"clips_per_second": round(per_second, 2), "memory_gib": round(memory_gib(), 3)}
        run.log_speed({"step": progress.step, **speed, **spent})
    if progress.step in due:
        with gathered(work.objective):
            scores = _evaluate(work, record, evaluate)
            drawn = next((batch for batch in micro if len(batch)), None)
            if drawn is not None:
                work.tracker.picture(work.objective, drawn, progress.step)
        _choose(work, scores, select)
    if saving:
        _save(work, select)
    run.states.check()


def _evaluate(work: Work, record: dict[str, float], evaluate: Evaluate | None) -> dict[str, float]:
    """Pass on the objective's warning; measure, and return what was found, which is the same on all processes."""
    progress = work.progress
    warned = work.objective.warning(record, progress.step) if record else None
    if warned:
        notice(f"step {progress.step}: {warned}")
        work.run.log({"step": progress.step, "warning": warned})
    work.objective.eval()
    scores: dict[str, float] = {}
    if evaluate is not None:
        with torch.no_grad(), work.fabric.autocast():
            scores = distributed.broadcast_from_rank_zero(evaluate(work.objective, progress.step))
        work.run.log({"step": progress.step, **scores})
        work.tracker.scalars(scores, progress.step)
    return scores


def _choose(work: Work, scores: dict[str, float], select: str | None) -> None:
    """Keep the best weights, or average the last ones."""
    progress, config = work.progress, work.run.config.train
    if config.average and progress.step > (1 - config.average) * work.total:
        progress.averaged += 1
        for name, value in whole(work.objective.state_dict()).items():
            mean = work.average.get(name, torch.zeros_like(value))
            work.average[name] = mean + (value - mean) / progress.averaged
    elif select is not None and (progress.best is None or scores[select] > progress.best):
        progress.best, progress.best_step = scores[select], progress.step
        work.run.publish(whole(work.objective.state_dict()))


def _save(work: Work, select: str | None) -> None:
    """Have the state saved, and the weights to use with it: in the end their running average, if there is one, else
    the last ones, unless the best ones are kept, which are there already."""
    model, optimizer = whole((work.objective.state_dict(), work.optimizer.state_dict()))
    averaged = work.average if work.progress.step == work.total else None
    last = model if select is None else None
    work.run.save(State(work.progress, model, optimizer, work.average), averaged or last)


def _finish(work: Work) -> Progress:
    """Close what is open, and end the command if any process was asked to, be it when all was done: what comes after
    the training is not to keep a scheduler waiting."""
    work.tracker.close()
    if count := len(work.run.rejected):
        notice(
            f"clips left out because they could not be read: {count}; see {work.run.folder / 'rejected.csv'}"
        )
    work.signal = max(distributed.all_gather_objects(stopping.requested()))
    if not work.signal:
        return work.progress
    folder, name, step = work.run.folder, Signals(work.signal).name, work.progress.step
    done = f"stopped by {name} and saved after step {step} of {work.total}"
    if step == work.total:
        done = f"complete and saved after step {step} when {name} stopped the command"
    raise Interrupted(
        f"{folder}: {done}; the same command goes on from there, a training one with --resume",
        work.signal,
    )


def _note_skipped(work: Work, micro: list[Batch]) -> None:
    progress, limit = work.progress, work.run.config.train.nonfinite_limit
    told = distributed.all_gather_objects([key for batch in micro for key in batch.keys.tolist()])
    keys = list(chain.from_iterable(told))
    work.run.log({"step": progress.step, "skipped": True, "clip_keys": keys})
    if progress.skipped_in_a_row >= limit:
        raise MelpatchError(
            f"{work.run.folder}: no finite loss or gradient in {limit} steps in a row; the clips' keys are in "
            "metrics.jsonl; lower --lr, use --precision 32-true, or look at those clips"
        )


def evaluation_steps(config: TrainConfig, total: int) -> set[int]:
    """Return after which steps to evaluate: evenly spread, the last among them."""
    return {
        max(1, round(total * (number + 1) / config.evaluations))
        for number in range(config.evaluations)
    }
