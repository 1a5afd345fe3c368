"""The training loop, written out; pretraining and fine-tuning share it.

Everything random in a step is a function of (seed, clip key, step). An interrupted run therefore
resumes as if it had never stopped, on any number of processes.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import chain
from math import isnan
from signal import Signals

import torch
from torch import Tensor

from melpatch import distributed
from melpatch.counted import counted
from melpatch.data.clip import Batch
from melpatch.data.corpus import Corpus, Rejected
from melpatch.errors import (
    DataError,
    Interrupted,
    NotFiniteError,
    UnreachableError,
    report_lost_workers,
)
from melpatch.objectives.base import Objective
from melpatch.progress import Bar, bar, notice
from melpatch.time_left import in_words
from melpatch.training import stopping
from melpatch.training.checkpoints import Checkpoint, Progress
from melpatch.training.config import TrainConfig
from melpatch.training.divergence import diverged, note_skipped, require_convergence
from melpatch.training.feeding import step_batches
from melpatch.training.launching import memory_gib
from melpatch.training.run import Run
from melpatch.training.sharding import (
    gather_full,
    load_optimizer_into,
    load_weights_into,
    unsharded,
)
from melpatch.training.speed import Speedometer
from melpatch.training.start import plan
from melpatch.training.stepping import backward, clip_gradients, set_rates
from melpatch.training.trackers import Tracker
from melpatch.training.trainer import Trainer, set_up

Evaluate = Callable[[Objective, int], dict[str, float]]


def fit(
    objective: Objective,
    corpus: Corpus,
    run: Run,
    *,
    evaluate: Evaluate | None = None,
    select: str | None = None,
    tracker: Tracker | None = None,
    keep_start: bool = False,
) -> Progress:
    """Train an objective on a corpus, from the run's newest checkpoint to its last step.

    Args:
        objective: what to train; on return it holds the last weights, and the run folder holds the
            weights to use.
        corpus: the training clips, which the run folder records.
        run: an open run folder.
        evaluate: called ``train.evaluations`` times with the objective in evaluation mode; returns
            numbers to log.
        select: name of the evaluated number whose best step's weights are kept (higher is better);
            None keeps the last weights.
        tracker: where curves and pictures go besides metrics.jsonl.
        keep_start: whether to evaluate before the first step too, so that ``select`` may keep the
            weights that the run starts from.

    Raises:
        ConfigError: the objective cannot be trained on this corpus with these settings.
        DataError: too many clips cannot be read.
        CheckpointError: the run was started on other clips, another process trains in its folder,
            or a save failed (a full disk fails only the last save).
        MelpatchError: too many steps in a row had no finite loss.
        Interrupted: a signal requested a stop, even in the last step; the run is saved.
    """
    config = run.config.train
    tracker = tracker or Tracker()
    trainer = set_up(objective, run.config, plan(run.config, corpus))
    total = trainer.total_steps
    with run.locked(), stopping.caught():
        run.remember(corpus)
        progress, average = _restore(trainer, run)
        speed = Speedometer(run, progress.step)
        stop_signal = 0
        with (
            report_lost_workers(),
            run.checkpoints,
            closing(step_batches(trainer, corpus, progress.step)) as feed,
            bar(total, "training", "step", done=progress.step) as shown,
        ):
            if keep_start and progress.step == 0:
                _evaluate_and_keep(trainer, run, tracker, progress, average, evaluate, select)
            while progress.step < total and not stop_signal:
                step = progress.step
                with speed.measured():
                    # Schedules: the learning rate and weight decay of this step.
                    lr = set_rates(trainer.optimizer, config, step, total)

                    # Batches and losses: the mean gradient over accumulated batches and processes.
                    with _saving_without_store(trainer, run, progress, average, select):
                        clips = next(feed)
                    news = bool(clips.rejected or stopping.requested())
                    losses = backward(trainer, clips.batches, step, news=news)

                    # Clip, optimiser, teacher: skipped if the loss or gradient is not finite.
                    if losses.finite:
                        clip_gradients(trainer.optimizer, config, losses.grad_norm)
                        trainer.optimizer.step()
                        objective.after_step(step)
                        progress.skipped_in_a_row = 0
                    trainer.optimizer.zero_grad(set_to_none=True)
                if losses.news or distributed.world_size() == 1:
                    stop_signal = _exchange_news(run, corpus, clips.rejected)
                step = progress.step = step + 1
                if losses.skipped:
                    note_skipped(run, progress, clips.batches)

                # Log.
                record = losses.record(lr)
                if step % config.log_every == 0 or step in (1, total):
                    _log(run, tracker, step, record)
                _show(shown, run.config.loader.batch_size, step, record)
                evaluating = step in evaluation_steps(config, total)
                saving = step % config.save_every == 0 or step == total or stop_signal > 0
                if evaluating or saving:
                    require_convergence(run, objective, progress, total)
                    run.log_speed(speed.record(step))

                # Evaluate; keep the best weights, or average the last ones.
                if evaluating:
                    _warn(objective, run, step, record)
                    _evaluate_and_keep(trainer, run, tracker, progress, average, evaluate, select)
                    with unsharded(objective):
                        _draw(objective, tracker, step, clips.batches)

                # Save.
                if saving:
                    _save(trainer, run, progress, average, select)
                run.checkpoints.check()
        return _finish(run, tracker, progress, total)


def evaluation_steps(config: TrainConfig, total: int) -> set[int]:
    """Return the steps after which to evaluate: evenly spread, the last one included."""
    count = config.evaluations
    return {max(1, round(total * number / count)) for number in range(1, count + 1)}


def _restore(trainer: Trainer, run: Run) -> tuple[Progress, dict[str, Tensor]]:
    """Load the newest checkpoint; return its progress and its running average of weights.

    A run of 0 steps publishes its initial weights.
    """
    state = run.restore()
    if state is not None:
        # After set_up, which moves the weights to their device and shards them.
        load_weights_into(trainer.objective, state.model)
        load_optimizer_into(trainer.optimizer.optimizer, state.optimizer)
        device = trainer.fabric.device
        return state.progress, {name: value.to(device) for name, value in state.average.items()}
    progress = Progress()
    if not trainer.total_steps:
        run.log({"step": 0})
        with run.checkpoints:
            _save(trainer, run, progress, {}, None)
    return progress, {}


def _exchange_news(run: Run, corpus: Corpus, rejected: list[Rejected]) -> int:
    """Record the unreadable clips of all ranks; return the stop signal of any rank, or 0.

    A collective call.

    Raises:
        DataError: too many clips cannot be read.
    """
    news = distributed.all_gather_objects((rejected, stopping.requested()))
    new = list(chain.from_iterable(clips for clips, _ in news))
    run.reject(new)
    if new:
        _check_rejected(run, corpus, new[-1])
    return max(signal for _, signal in news)


def _check_rejected(run: Run, corpus: Corpus, newest: Rejected) -> None:
    """Raise DataError if more clips of the corpus are unreadable than ``max_bad_share`` allows."""
    limit = max(1, int(run.config.loader.max_bad_share * len(corpus.clips)))
    # Of earlier processes of a run only the locations are known.
    known = {clip.location for clip in corpus.clips} & run.rejected.keys()
    if max(len(known), len(run.unreadable)) > limit:
        raise DataError(
            f"{corpus.shown_name}: more than {limit} of {counted(len(corpus.clips), 'clip')} cannot be read, the "
            f"last being {newest.path} ({newest.reason}); see {run.folder / 'rejected.csv'}, repair "
            "or remove them, or raise --max-bad-share"
        )


def _log(run: Run, tracker: Tracker, step: int, values: dict[str, float]) -> None:
    """Write numbers to metrics.jsonl and to the tracker."""
    run.log({"step": step, **values})
    tracker.scalars(values, step)


def _show(shown: Bar, batch_size: int, step: int, record: dict[str, float]) -> None:
    """Advance the progress bar; once the rate of a longer run is known, print the time left."""
    first_estimate = shown.estimate.seconds_left() is None
    fields: dict[str, float | str] = {"loss": record.get("loss", float("nan"))}
    if (rate := shown.per_second()) is not None:
        fields["clips"] = f"{batch_size * rate:.1f} clips/s"
    memory = memory_gib()
    if not isnan(memory):
        fields["memory"] = f"{memory:.1f} GiB memory"
    shown.advance(1, **fields)
    seconds = shown.estimate.seconds_left()
    if seconds is None or not first_estimate or shown.total is None or shown.total <= 50:
        return
    remaining = shown.total - step
    clips_per_second = batch_size * remaining / max(seconds, 1e-9)
    notice(
        f"{clips_per_second:.1f} clips/s; the remaining {remaining} steps take {in_words(seconds)}"
    )


def _warn(objective: Objective, run: Run, step: int, record: dict[str, float]) -> None:
    """Print and log the objective's warning about the metrics of a step, if it has one."""
    warning = objective.warning(record, step) if record else None
    if warning:
        notice(f"step {step}: {warning}")
        run.log({"step": step, "warning": warning})


def _evaluate(trainer: Trainer, run: Run, evaluate: Evaluate | None, step: int) -> dict[str, float]:
    """Put the objective in evaluation mode and return its scores on rank 0; a collective call.

    Raises:
        MelpatchError: the run has diverged: its weights are finite, but the outputs are not.
    """
    trainer.objective.eval()
    if evaluate is None:
        return {}
    # All ranks use the scores of rank 0, so that all of them keep the same best weights.
    try:
        with torch.no_grad(), trainer.fabric.autocast():
            return distributed.broadcast_from_rank_zero(evaluate(trainer.objective, step))
    except NotFiniteError as error:
        raise diverged(run, f"at step {step} its outputs are no finite numbers") from error


def _draw(objective: Objective, tracker: Tracker, step: int, batches: list[Batch]) -> None:
    """Give the tracker a picture of the first batch that has clips."""
    batch = next((batch for batch in batches if len(batch)), None)
    if batch is not None:
        tracker.picture(objective, batch, step)


def _evaluate_and_keep(
    trainer: Trainer,
    run: Run,
    tracker: Tracker,
    progress: Progress,
    average: dict[str, Tensor],
    evaluate: Evaluate | None,
    select: str | None,
) -> None:
    """Evaluate, and publish the weights if they are the best so far, or add them to the average."""
    with unsharded(trainer.objective):
        scores = _evaluate(trainer, run, evaluate, progress.step)
    if scores:
        _log(run, tracker, progress.step, scores)
    share = run.config.train.average_last
    if share and progress.step > (1 - share) * trainer.total_steps:
        # Running mean over n evaluations: m_n = m_(n-1) + (w - m_(n-1)) / n.
        progress.averaged += 1
        for name, value in gather_full(trainer.objective.state_dict()).items():
            mean = average.get(name, torch.zeros_like(value))
            average[name] = mean + (value - mean) / progress.averaged
    elif select is not None and (progress.best is None or scores[select] > progress.best):
        progress.best = scores[select]
        progress.best_step = progress.step
        run.publish(gather_full(trainer.objective.state_dict()))


def _save(
    trainer: Trainer,
    run: Run,
    progress: Progress,
    average: dict[str, Tensor],
    select: str | None,
) -> None:
    """Save a checkpoint together with the weights to use.

    After the last step these are the running average, if there is one. Otherwise they are the
    current weights, unless the best ones are selected, which are already published.
    """
    # All ranks gather the shards of a sharded state, though only rank 0 writes it.
    model, optimizer = gather_full((trainer.objective.state_dict(), trainer.optimizer.state_dict()))
    published = model if select is None else None
    if average and progress.step == trainer.total_steps:
        published = average
    run.save(Checkpoint(progress, model, optimizer, average), published)


@contextmanager
def _saving_without_store(
    trainer: Trainer,
    run: Run,
    progress: Progress,
    average: dict[str, Tensor],
    select: str | None,
) -> Iterator[None]:
    """Save the run if the body cannot fetch clips: their store is away, and no clip is bad.

    A collective call.

    Raises:
        DataError: the store of any rank is away.
    """
    away: UnreachableError | None = None
    try:
        yield
    except UnreachableError as error:
        away = error
    if not distributed.on_any_rank(away is not None):
        return
    reason = next(filter(None, distributed.all_gather_objects(away and str(away))))
    saved = "the checkpoints are kept"
    if progress.step:
        # No rank has begun the step, so all of them have the state after the one before.
        _save(trainer, run, progress, average, select)
        run.checkpoints.wait()
        distributed.barrier()
        saved = f"saved after step {progress.step}"
    raise DataError(f"{reason}; {run.folder}: {saved}, continue with --resume") from away


def _finish(run: Run, tracker: Tracker, progress: Progress, total: int) -> Progress:
    """Close the tracker and return the progress.

    Raises:
        Interrupted: a signal requested a stop on any rank. This holds even if training is complete:
            what follows it must not keep a scheduler waiting.
    """
    tracker.close()
    if count := len(run.rejected):
        rejected_csv = run.folder / "rejected.csv"
        notice(f"clips left out because they could not be read: {count}; see {rejected_csv}")
    if progress.skipped:
        notice(
            f"{counted(progress.skipped, 'step')} of {total} changed nothing, since loss or "
            "gradient was not finite; the keys of their clips are in "
            f"{run.folder / 'metrics.jsonl'}"
        )
    stop_signal = max(distributed.all_gather_objects(stopping.requested()))
    if not stop_signal:
        return progress
    name = Signals(stop_signal).name
    done = f"stopped by {name} and saved after step {progress.step} of {total}"
    if progress.step == total:
        done = f"complete and saved after step {total} when {name} stopped the command"
    raise Interrupted(
        f"{run.folder}: {done}; the same command continues from there, a training command with "
        "--resume",
        stop_signal,
    )
