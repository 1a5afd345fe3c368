"""Means over tasks and seeds that a slow look at the lines bears out, and gains seed by seed."""

import statistics
from dataclasses import replace

import pytest
from comparison.specs import spec

from melpatch.comparison.plan import plan
from melpatch.comparison.results import Results
from melpatch.comparison.summary import Row, summarise, summary_table
from melpatch.comparison.work import score_keys

T_95 = 4.30265272991  # Student's t at 0.975 with 2 degrees of freedom, from a table
RANDOM = (0.4, 0.6, 0.65)
MINE = (0.5, 0.65, 0.95)


@pytest.fixture
def runs(lists):
    found = spec(
        lists,
        ("seeds = [0, 1]", "seeds = [0, 1, 2]"),
        ("[10, 1000000]", "[10]"),
        ('protocols = ["linear C=1.0"]\n', ""),
    )
    return plan(found, found.budget("small"))


def results_of(path, runs, scores):
    """Results in which task number n has a score of n / 10 above the first one's."""
    results = Results(path / "results.jsonl")
    for run in runs:
        for number, key in enumerate(score_keys(run)):
            score = scores[run.method.name, run.seed]
            if score is not None:
                results.add(key, {"value": score + number / 10})
    return results


def scores_of(random, mine):
    return {("random", seed): score for seed, score in enumerate(random)} | {
        ("mine", seed): score for seed, score in enumerate(mine)
    }


def test_scores_are_means_over_tasks_and_gains_are_of_the_same_seed(runs, tmp_path):
    random, mine = summarise(runs, results_of(tmp_path, runs, scores_of(RANDOM, MINE)))
    tasks = len(runs[0].scorings)
    offset = statistics.fmean(number / 10 for number in range(tasks))
    assert random.row == Row("random", "tiny", "none")
    assert random.score.value == pytest.approx(statistics.fmean(RANDOM) + offset)
    assert random.score.half == pytest.approx(T_95 * statistics.stdev(RANDOM) / 3**0.5)
    assert random.gain is None
    gains = [ours - theirs for ours, theirs in zip(MINE, RANDOM, strict=True)]
    assert mine.gain.value == pytest.approx(statistics.fmean(gains))
    assert mine.gain.half == pytest.approx(T_95 * statistics.stdev(gains) / 3**0.5)
    assert (mine.score.seeds, mine.gain.seeds) == (3, 3)


def test_only_seeds_with_all_tasks_count(runs, tmp_path):
    results = results_of(tmp_path, runs, scores_of((0.4, None, 0.65), (0.5, 0.6, None)))
    last = next(run for run in runs if run.method.name == "mine" and run.seed == 2)
    results.add(score_keys(last)[0], {"value": 0.9})  # one task of several
    random, mine = summarise(runs, results)
    assert random.score.seeds == 2
    assert random.score.half is None
    # Seed 1 has no score of the untrained method.
    assert (mine.score.seeds, mine.gain.seeds) == (2, 1)
    assert mine.gain.value == pytest.approx(0.1)


def test_gains_are_over_the_first_untrained_method_even_where_it_is_not_finished(lists, tmp_path):
    found = spec(
        lists,
        ("seeds = [0, 1]", "seeds = [0, 1, 2]"),
        ("[10, 1000000]", "[10]"),
        ('protocols = ["linear C=1.0"]\n', ""),
    )
    first = next(method for method in found.methods if not method.trained)
    both = replace(
        found, methods=(*found.methods, replace(first, name="other start", recipe="maskspec"))
    )
    runs = plan(both, both.budget("small"))
    others = {("other start", seed): 0.7 for seed in range(3)}
    # Of the first one, seed 0 failed.
    scores = scores_of((None, 0.5, 0.5), (0.8, 0.8, 0.8)) | others
    by_name = {own.row.method: own for own in summarise(runs, results_of(tmp_path, runs, scores))}
    assert by_name["random"].gain is None
    assert by_name["mine"].gain.value == pytest.approx(0.3)
    assert by_name["mine"].gain.seeds == 2
    assert by_name["other start"].gain.value == pytest.approx(0.2)


def test_the_best_row_is_on_top_and_says_what_it_gains(runs, tmp_path):
    summaries = summarise(runs, results_of(tmp_path, runs, scores_of(RANDOM, MINE)))
    heads, _, best, second, _, foot = summary_table(summaries, runs)
    assert heads == "| method | budget | knn, 2 tasks | gain |"
    assert best.startswith("| mine | 10 ")
    assert "+0.150 ± " in best
    assert second.startswith("| random | none | ")
    assert second.endswith(" (3 seeds) | - |")
    assert "over random, seed by seed" in foot


def test_one_task_is_no_mean(lists, tmp_path):
    found = spec(lists)  # each task has a protocol of its own
    runs = plan(found, found.budget("small"))
    results = Results(tmp_path / "results.jsonl")
    for run in runs:
        for key in score_keys(run):
            results.add(key, {"value": 0.5})
    assert summary_table(summarise(runs, results), runs) == []


def test_nothing_is_summed_up_before_a_row_is_done(runs, tmp_path):
    assert summary_table(summarise(runs, Results(tmp_path / "results.jsonl")), runs) == []
