"""Search for the settings of recipes by successive halving, with equal effort for every objective.

    python benchmarks/recipe_search.py lab/recipe-search.toml --out search --only SSAST M2D

The spec is that of a comparison whose tasks are validation clips. Candidate 0 of a method is its
recipe; the others draw each setting below, and the same draw for every method, so that the settings
can be judged over all of them, too. All candidates train for the first of ``--cpu-seconds``, the
better half of them from the start for the next, and so on (Jamieson and Talwalkar 2016, arXiv
1502.07943). What is done is kept in ``--out``, and the same command goes on. Prints and writes
search.md: every candidate with the mean over tasks of its score by the first protocol of the spec.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from melpatch import cli
from melpatch.comparison.plan import Pretraining, plan
from melpatch.comparison.results import locked
from melpatch.comparison.spec import Budget, Method, Spec, read_spec
from melpatch.comparison.summary import summarise
from melpatch.comparison.work import Comparison

FACTORS = {"lr": (1 / 3, 1.0, 3.0), "batch-size": (0.5, 1.0, 2.0)}
"""Factors of a recipe's own value."""
VALUES = {
    "seconds": ("1", "2", "4"),
    "encoder.init": ("timm", "mae"),
    "front-end.scale": ("1", "2"),
    "short-clips": ("pad", "repeat"),
}
Draw = dict[str, float | str]


class Candidate(NamedTuple):
    """Settings of a recipe, and its scores by CPU seconds so far."""

    number: int
    method: Method
    scores: dict[float, float]


def main(arguments: list[str] | None = None) -> None:
    """Search, method by method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spec")
    parser.add_argument("--budget")
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--cpu-seconds", nargs="+", type=float, default=[60.0, 120.0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    spec = read_spec(options.spec)
    budget = spec.budget(options.budget)
    draws = [*drawn(options.candidates - 1, options.seed)]
    tables = []
    with locked(options.out):
        for method in spec.methods:
            if options.only and method.name not in options.only:
                continue
            candidates = [Candidate(0, method, {})]
            for number, draw in enumerate(draws, start=1):
                changed = with_settings(method, draw, budget.sizes[0])
                changed = replace(changed, name=f"{method.name} {number}")
                candidates.append(Candidate(number, changed, {}))
            halve(spec, budget, candidates, options)
            tables += [*table(method, candidates, options.cpu_seconds), ""]
            (options.out / "search.md").write_text("\n".join(tables), encoding="utf-8")
    print("\n".join(tables))


def drawn(count: int, seed: int) -> Iterator[Draw]:
    """Yield different draws of all settings."""
    generator = np.random.default_rng(seed)
    choices = FACTORS | VALUES
    seen: list[Draw] = []
    while len(seen) < count:
        draw = {name: values[generator.integers(len(values))] for name, values in choices.items()}
        if draw not in seen:
            seen.append(draw)
            yield draw


def with_settings(method: Method, draw: Draw, size: str) -> Method:
    """Return a method with drawn settings, after its own flags."""
    words = [method.recipe, "--size", size, "--data", "none", "--out", "none"]
    _, config = cli.parse("pretrain", words)
    training = config.training
    own = {"lr": training.train.lr, "batch-size": training.loader.batch_size}
    flags = [method.flags]
    for name, drawn_value in draw.items():
        value = drawn_value
        if name in own:
            value = type(own[name])(own[name] * float(drawn_value))
        flags.append(f"--{name} {value:.4g}" if isinstance(value, float) else f"--{name} {value}")
    return replace(method, flags=" ".join(filter(None, flags)))


def halve(
    spec: Spec, budget: Budget, candidates: Sequence[Candidate], options: argparse.Namespace
) -> None:
    """Fill in the scores of candidates: all at the first budget, half as many at each further one."""
    left = [*candidates]
    for seconds in options.cpu_seconds:
        rung = replace(budget, cpu_seconds=(seconds,), steps=(), epochs=())
        methods = tuple(candidate.method for candidate in left)
        runs: list[Pretraining] = plan(replace(spec, methods=methods), rung)
        comparison = Comparison(options.out, runs, floors=False)
        comparison.carry_out(options.jobs, after=lambda: None)
        means = {
            summary.row.method: summary.score.value
            for summary in summarise(runs, comparison.results)
            if summary.protocol == budget.protocols[0]
        }
        for candidate in left:
            # What failed, such as a batch that is larger than the corpus, goes no further.
            candidate.scores[seconds] = means.get(candidate.method.name, float("-inf"))
        left.sort(key=lambda candidate: -candidate.scores[seconds])
        left = left[: max(1, len(left) // 2)]


def table(
    method: Method, candidates: Sequence[Candidate], budgets: Sequence[float]
) -> Iterator[str]:
    """Yield the lines of a table of a method's candidates, those that came furthest on top."""
    heads = ["candidate", *(f"{seconds:g} CPU-s" for seconds in budgets), "flags"]
    yield f"**{method.name}**\n"
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"

    def merit(candidate: Candidate) -> list[float]:
        return [candidate.scores.get(seconds, float("-inf")) for seconds in reversed(budgets)]

    for candidate in sorted(candidates, key=merit, reverse=True):
        scores = [shown(candidate.scores[each]) for each in budgets if each in candidate.scores]
        cells = [str(candidate.number), *scores, *[""] * (len(budgets) - len(scores))]
        yield f"| {' | '.join(cells)} | {candidate.method.flags or 'the recipe'} |"


def shown(score: float) -> str:
    """Return a score as text."""
    return "failed" if score == float("-inf") else f"{score:.3f}"


if __name__ == "__main__":
    main()
