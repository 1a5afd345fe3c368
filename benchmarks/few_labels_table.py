"""Choose steps by validation and score them on test clips: the table of what few_labels.py wrote.

    python benchmarks/few_labels_table.py FILE...

Validation clips have the rates of the training clips, at least one of each class; the step with the
best balanced accuracy counts. Prints a line of JSON per corpus, sizes and variant: means over seeds,
and the difference in balanced accuracy to the variant without any rule (and of a trained network to
the linear probe), with its 95 % interval by test clip (seeds fixed) and its value with each seed.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

NORMAL_95 = 1.96


class Chosen(NamedTuple):
    """The predictions of one run at the step that validation chose."""

    test: Int[np.ndarray, " clip"]
    """Classes of the test clips."""
    predicted: Int[np.ndarray, " clip"]
    """Predicted classes of them."""
    sizes: Int[np.ndarray, " label"]
    """Training clips of each class."""

    @property
    def right(self) -> Bool[np.ndarray, " clip"]:
        """Which test clips are predicted rightly."""
        return self.test == self.predicted


def chosen(record: dict[str, Any]) -> Chosen:
    """Return the predictions of the step with the best balanced accuracy on validation."""
    sizes = np.array(record["train_sizes"])
    val = np.array(record["val"])
    kept = np.concatenate([of_class(val, label, sizes) for label in range(len(sizes))])
    evaluations = [np.array(predicted) for predicted in record["evaluations"]]
    scores = [recalls(val[kept], predicted[kept]).mean() for predicted in evaluations]
    best = evaluations[int(np.argmax(scores))]
    return Chosen(np.array(record["test"]), best[len(val) :], sizes)


def of_class(
    val: Int[np.ndarray, " clip"], label: int, sizes: Int[np.ndarray, " label"]
) -> Int[np.ndarray, " kept"]:
    """Return as many validation clips of a class as its share of the largest class."""
    places = np.flatnonzero(val == label)
    return places[: max(1, round(len(places) * sizes[label] / sizes.max()))]


def recalls(true: Int[np.ndarray, " clip"], predicted: Int[np.ndarray, " clip"]) -> np.ndarray:
    """Return the share of the clips of each class that is predicted rightly."""
    return np.array([(predicted[true == label] == label).mean() for label in np.unique(true)])


def macro_f1(run: Chosen) -> float:
    """Return the mean F1 over classes; 0 for one that is neither there nor predicted."""
    labels = np.arange(len(run.sizes))
    hits = np.array([(run.right & (run.test == label)).sum() for label in labels])
    there = np.bincount(run.test, minlength=len(labels))
    given = np.bincount(run.predicted, minlength=len(labels))
    return float((2 * hits / np.maximum(there + given, 1)).mean())


def scores(run: Chosen) -> dict[str, float]:
    """Return scores on test clips, of which each class has equally many but where it says rates."""
    recall = recalls(run.test, run.predicted)
    by_size = np.argsort(run.sizes, kind="stable")
    third = max(1, len(by_size) // 3)
    return {
        "balanced": float(recall.mean()),
        "macro_f1": macro_f1(run),
        "at_training_rates": float(recall @ (run.sizes / run.sizes.sum())),
        "rarest_third": float(recall[by_size[:third]].mean()),
        "commonest_third": float(recall[by_size[-third:]].mean()),
    }


def difference(runs: list[Chosen], others: list[Chosen]) -> dict[str, Any]:
    """Return how much better runs are than others of the same seeds, in balanced accuracy."""
    pairs = list(zip(runs, others, strict=True))
    gains = np.mean([run.right.astype(float) - other.right for run, other in pairs], axis=0)
    classes = [gains[runs[0].test == label] for label in np.unique(runs[0].test)]
    mean = float(np.mean([part.mean() for part in classes]))
    interval = None
    # The clips of a class say how much they vary, if there are several.
    if min(map(len, classes)) > 1:
        variance = sum(part.var(ddof=1) / len(part) for part in classes) / len(classes) ** 2
        half = NORMAL_95 * float(variance) ** 0.5
        interval = [round(mean - half, 3), round(mean + half, 3)]
    return {
        "gain": round(mean, 3),
        "gain_95": interval,
        "gain_of_seeds": [
            round(scores(run)["balanced"] - scores(other)["balanced"], 3) for run, other in pairs
        ],
    }


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    options = parser.parse_args(arguments)
    groups: dict[tuple[str, tuple[int, ...]], dict[str, dict[int, Chosen]]] = defaultdict(dict)
    for path in options.files:
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            group = groups[record["data"], tuple(record["sizes"])]
            group.setdefault(record["variant"], {})[record["seed"]] = chosen(record)
    for (data, sizes), variants in groups.items():
        for variant, by_seed in variants.items():
            runs = [by_seed[seed] for seed in sorted(by_seed)]
            each = [scores(run) for run in runs]
            line = {"data": data, "sizes": sizes, "variant": variant, "seeds": sorted(by_seed)}
            line |= {
                name: round(float(np.mean([trial[name] for trial in each])), 3) for name in each[0]
            }
            base = variants.get("linear equal" if variant.startswith("linear") else "plain", {})
            if base and base is not by_seed:
                line |= difference(runs, [base[seed] for seed in sorted(by_seed)])
            probes = variants.get("linear equal")
            if probes and not variant.startswith("linear"):
                line["over_probe"] = difference(runs, [probes[seed] for seed in sorted(by_seed)])
            print(json.dumps(line))


if __name__ == "__main__":
    main()
