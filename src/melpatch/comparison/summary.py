"""The answer of a comparison on one screen: means over tasks, and gains over random weights."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from melpatch.comparison.over_seeds import FEWEST_SEEDS, half_interval
from melpatch.comparison.plan import Pretraining
from melpatch.comparison.results import Results
from melpatch.comparison.rows import markdown_row
from melpatch.comparison.work import score_keys
from melpatch.counted import counted

_FOOT = """\
Mean of the scores over tasks, then over the seeds for which all are done, best first, ± half the \
95 % interval of that mean (from {fewest} seeds on); the gain is over {untrained}, seed by seed."""

BySeed = Mapping[int, float]
"""Scores by seed."""


class Row(NamedTuple):
    """What a row of the table shows."""

    method: str
    size: str
    budget: str


class Mean(NamedTuple):
    """A mean over seeds."""

    value: float
    half: float | None
    """Half its 95 % interval; None for too few seeds."""
    seeds: int


class Summary(NamedTuple):
    """The scores of a method under a protocol, as means over tasks."""

    row: Row
    protocol: str
    score: Mean
    gain: Mean | None
    """Over the first untrained method of the same size; None for that, and without one."""


def summarise(runs: Sequence[Pretraining], results: Results) -> list[Summary]:
    """Return the means of every row and protocol for which a seed has all tasks."""
    scores: dict[tuple[Row, str], dict[int, float]] = {}
    for run in runs:
        for protocol, score in _means_over_tasks(run, results):
            scores.setdefault((_row(run), protocol), {})[run.seed] = score
    # By the plan, whatever is finished: the first to finish may be another in every table.
    references = {run.size: _row(run) for run in reversed(runs) if _is_untrained(run)}
    summaries = []
    for (row, protocol), by_seed in scores.items():
        # Where nothing is untrained, a row is its own reference, which has no gain.
        reference: BySeed = scores.get((references.get(row.size, row), protocol), {})
        gains = [score - reference[seed] for seed, score in by_seed.items() if seed in reference]
        gain = None
        if gains and reference is not by_seed:
            gain = _mean(gains)
        summaries.append(Summary(row, protocol, _mean([*by_seed.values()]), gain))
    return summaries


def _row(run: Pretraining) -> Row:
    return Row(run.method.name, run.size, run.budget)


def _is_untrained(run: Pretraining) -> bool:
    return not (run.method.trained or run.method.init)


def _means_over_tasks(run: Pretraining, results: Results) -> Iterator[tuple[str, float]]:
    """Yield each protocol by which a run has a score on all of its tasks, and their mean."""
    scores: dict[str, list[float | None]] = {}
    for scoring, key in zip(run.scorings, score_keys(run), strict=True):
        line = results.find(key) or {}
        scores.setdefault(scoring.protocol, []).append(line.get("value"))
    for protocol, values in scores.items():
        done = [value for value in values if value is not None]
        if len(done) == len(values):
            yield protocol, fmean(done)


def _mean(values: Sequence[float]) -> Mean:
    return Mean(fmean(values), half_interval(values), len(values))


def summary_table(summaries: Sequence[Summary], runs: Sequence[Pretraining]) -> list[str]:
    """Return the lines of a table with the best row by the first protocol on top; none where no
    protocol has several tasks."""
    tasks = {(scoring.protocol, scoring.task.name) for run in runs for scoring in run.scorings}
    counts = Counter(protocol for protocol, _ in tasks)
    if not summaries or max(counts.values()) < 2:
        return []
    protocols = [*dict.fromkeys(summary.protocol for summary in summaries)]
    cells = {(summary.row, summary.protocol): summary for summary in summaries}
    rows = sorted(
        dict.fromkeys(summary.row for summary in summaries),
        key=lambda row: [_rank(cells.get((row, protocol))) for protocol in protocols],
    )
    several_sizes = len({row.size for row in rows}) > 1
    heads = ["method", *["size"] * several_sizes, "budget"]
    for protocol in protocols:
        heads += [f"{protocol}, {counted(counts[protocol], 'task')}", "gain"]
    lines = [markdown_row(heads), "|---" * len(heads) + "|"]
    for row in rows:
        texts = [row.method, *[row.size] * several_sizes, row.budget]
        for protocol in protocols:
            texts += _texts(cells.get((row, protocol)))
        lines.append(markdown_row(texts))
    names = [*dict.fromkeys(run.method.name for run in runs if _is_untrained(run))]
    foot = _FOOT.format(
        fewest=FEWEST_SEEDS,
        untrained=names[0] if names else "an untrained method, of which there is none here",
    )
    return [*lines, "", foot]


def _rank(summary: Summary | None) -> float:
    """Return what sorts the best score first, and missing ones last."""
    return 1.0 if summary is None else -summary.score.value


def _texts(summary: Summary | None) -> tuple[str, str]:
    if summary is None:
        return "-", "-"
    score = (
        f"{summary.score.value:.3f}{_half(summary.score)} ({counted(summary.score.seeds, 'seed')})"
    )
    gain = "-"
    if summary.gain is not None:
        gain = f"{summary.gain.value:+.3f}{_half(summary.gain)}"
    return score, gain


def _half(mean: Mean) -> str:
    return "" if mean.half is None else f" ± {mean.half:.3f}"
