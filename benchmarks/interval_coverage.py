"""How often 95 % intervals of mean average precision and mean AUC hold the truth, by several methods.

Scores of positive and negative clips are normal, ``distance`` standard deviations apart, so that
the truth is an integral. Prints a table as in lab/intervals.md:

    python benchmarks/interval_coverage.py --repeats 200 --seed 0
    python benchmarks/interval_coverage.py --repeats 1000 --ours  # minutes, melpatch's method alone
"""

import argparse
from collections.abc import Iterator

import numpy as np
from scipy.stats import norm, t

from melpatch.evaluation.influence import clip_influence, informative_clips
from melpatch.evaluation.intervals import ClipShares, interval, wilson
from melpatch.evaluation.ranking import rank_classes

RESAMPLES = 400
CASES = [(1, 10), (10, 10), (50, 50)]  # classes, and clips per positive clip of a class
POSITIVES = (5, 10, 20)
DISTANCES = (0.5, 1.5, 3.0)


def truth(metric: str, rate: float, distance: float) -> float:
    """Return what endless clips give."""
    if metric == "mAUC":
        return float(norm.cdf(distance / 2**0.5))
    score = np.linspace(-8, 8 + distance, 20001)
    hits = rate * norm.sf(score - distance)
    precision = hits / (hits + (1 - rate) * norm.sf(score))
    return float(np.trapezoid(norm.pdf(score - distance) * precision, score))


def resampled(
    metric: str, scores: np.ndarray, positive: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return the metric for each row of clip weights; the mean is over the classes it can rank."""
    values = []
    for score, mark in zip(scores.T, positive.T, strict=True):
        order = np.argsort(-score)
        drawn = weights[:, order]
        hits = np.cumsum(drawn * mark[order], axis=1)
        gain = drawn * mark[order]
        with np.errstate(invalid="ignore", divide="ignore"):
            if metric == "mAP":
                part = np.nan_to_num(hits / np.cumsum(drawn, axis=1))
                values.append((part * gain).sum(axis=1) / hits[:, -1])
            else:
                misses = drawn * ~mark[order]
                values.append((hits * misses).sum(axis=1) / hits[:, -1] / misses.sum(axis=1))
    return np.ma.masked_invalid(values).mean(axis=0).filled(np.nan)


def bootstraps(
    metric: str, value: float, scores: np.ndarray, positive: np.ndarray, draw: np.random.Generator
) -> Iterator[tuple[str, float, float]]:
    """Yield the intervals of resampling methods."""
    clips = len(scores)
    weights = draw.multinomial(clips, np.full(clips, 1 / clips), RESAMPLES).astype(float)
    values = resampled(metric, scores, positive, weights)
    yield "bootstrap, percentile", *np.nanquantile(values, [0.025, 0.975])
    low, high = np.nanquantile(values, [0.025, 0.975])
    yield "bootstrap, basic", 2 * value - high, 2 * value - low
    shift = norm.ppf(np.clip(np.nanmean(values < value), 1e-3, 1 - 1e-3))
    ends = norm.cdf(2 * shift + norm.ppf([0.025, 0.975]))
    yield "bootstrap, bias-corrected", *np.nanquantile(values, ends)
    some = positive.any(axis=1)
    for rows in (np.flatnonzero(some), np.flatnonzero(~some)):
        if len(rows):
            chances = np.full(len(rows), 1 / len(rows))
            weights[:, rows] = draw.multinomial(len(rows), chances, RESAMPLES)
    values = resampled(metric, scores, positive, weights)
    yield "bootstrap, by positives", *np.nanquantile(values, [0.025, 0.975])


def taken(
    metric: str, scores: np.ndarray, positive: np.ndarray
) -> Iterator[tuple[str, float, float]]:
    """Yield the interval of melpatch."""
    clips = len(scores)
    value, influence = clip_influence(scores, positive, metric)
    count = float(informative_clips(positive, metric))
    shares = (value + influence) / clips
    parts = ClipShares(metric, value, shares, np.full(clips, 1 / clips), np.arange(clips), count)
    yield "as in melpatch", *interval(parts, "clip")


def jackknives(
    metric: str, scores: np.ndarray, positive: np.ndarray
) -> Iterator[tuple[str, float, float]]:
    """Yield other intervals from the influence of clips."""
    clips = len(scores)
    value, influence = clip_influence(scores, positive, metric)
    count = float(informative_clips(positive, metric))
    deviation = (influence.var(ddof=1) / clips) ** 0.5
    yield "jackknife, normal", value - 1.96 * deviation, value + 1.96 * deviation
    for name, centre in (("", value), (", bias removed", value + influence.mean())):
        inside = float(np.clip(centre, 1e-6, 1 - 1e-6))
        spread = inside * (1 - inside)
        half = 1.96 * deviation / spread
        place = np.log(inside / (1 - inside))
        ends = 1 / (1 + np.exp(-np.array([place - half, place + half])))
        yield f"jackknife, logit{name}", *ends
        independent = spread / deviation**2 if deviation > 0 else count
        quantile = float(t.ppf(0.975, max(count - 1, 1)))
        yield f"jackknife, Wilson{name}", *wilson(inside, float(independent), quantile)


def coverage(
    metric: str, case: tuple[int, int, int, float], repeats: int, seed: int, ours: bool
) -> dict[str, float]:
    """Return the share of repeats in which each method's interval holds the truth."""
    classes, ratio, positives, distance = case
    clips = ratio * positives
    rate = positives / clips
    expected = truth(metric, rate, distance)
    draw = np.random.default_rng([seed, classes, positives, int(10 * distance)])
    held: dict[str, float] = {}
    for _ in range(repeats):
        positive = draw.random((clips, classes)) < rate
        positive[0] |= ~positive.any(axis=0)
        scores = draw.standard_normal((clips, classes)) + distance * positive
        intervals = [*taken(metric, scores, positive)]
        if not ours:
            average, area = rank_classes(scores, positive)
            value = float(np.mean(average if metric == "mAP" else area))
            intervals += jackknives(metric, scores, positive)
            intervals += bootstraps(metric, value, scores, positive, draw)
        for name, low, high in intervals:
            held[name] = held.get(name, 0) + (low <= expected <= high) / repeats
    return held


def main() -> None:
    """Print the coverage of each method, a line per case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ours", action="store_true", help="melpatch's method alone")
    options = parser.parse_args()
    for metric in ("mAP", "mAUC"):
        lines = {}
        for classes, ratio in CASES:
            for positives in POSITIVES:
                for distance in DISTANCES:
                    case = (classes, ratio, positives, distance)
                    held = coverage(metric, case, options.repeats, options.seed, options.ours)
                    lines[case] = held
                    shown = "; ".join(f"{name} {share:.3f}" for name, share in held.items())
                    print(metric, case, shown, flush=True)
        print(f"| {metric}: method | least | mean | greatest |")
        print("|---|---|---|---|")
        for name in held:
            shares = [line[name] for line in lines.values()]
            print(f"| {name} | {min(shares):.2f} | {np.mean(shares):.2f} | {max(shares):.2f} |")


if __name__ == "__main__":
    main()
