"""Train classifiers on few or uneven labels, as in lab/uneven-classes.md and lab/head-start.md.

    python benchmarks/few_labels.py RUN --data DATA/fsdd/manifest.csv --sizes 40 3 --probes \
        --variants plain sqrt balanced sampling --out fsdd.jsonl
    python benchmarks/few_labels.py RUN --data DATA/fsdd/manifest.csv --sizes 5 5 --probes \
        --variants plain probe --out fsdd.jsonl
    python benchmarks/few_labels_table.py fsdd.jsonl

The classes get as many training clips as ``--sizes`` says, from the largest to the smallest in
geometric steps, in an order that the seed draws. A variant is ``plain``, or joined by + from the
rules of loss weights (sqrt, balanced), balanced sampling (sampling), a random head on the linear
probe's pooling (pooling), a head that starts from that probe (probe) and, trained with it, the last
layers alone (last1, last2, ...) or low-rank adapters of all layers (rank1, rank2, ...). Appends a line of JSON per
variant and seed: the predicted classes of the validation and test clips at every evaluation.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from melpatch.data.corpus import Corpus, label_matrix
from melpatch.data.manifest import load_corpus
from melpatch.data.splits import split_corpus
from melpatch.encoders.base import Encoder
from melpatch.evaluation.features import ClipVectors
from melpatch.evaluation.frozen_features import FrozenFeatures
from melpatch.evaluation.linear import fit_linear
from melpatch.evaluation.select import linear_probe
from melpatch.inference.model import load
from melpatch.objectives.base import Objective
from melpatch.training.config import RunConfig
from melpatch.training.loop import fit
from melpatch.training.run import Run
from melpatch.training.start import plan
from melpatch.workflows.classifier import classifier, starting_settings
from melpatch.workflows.frozen_probe import probe_first
from melpatch.workflows.head_start import with_head_of_probe
from melpatch.workflows.label_settings import class_weights, resolved
from melpatch.workflows.validation import Validation


def main(arguments: list[str] | None = None) -> None:
    """Train every variant with every seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("init")
    parser.add_argument("--data", required=True)
    parser.add_argument("--split-column", default="split_or_fold")
    parser.add_argument("--test-fold")
    parser.add_argument("--val-fold")
    parser.add_argument("--sizes", nargs=2, type=int, required=True)
    parser.add_argument("--variants", nargs="*", default=[])
    parser.add_argument("--probes", action="store_true")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--val-per-class", type=int, default=20)
    parser.add_argument("--test-per-class", type=int, default=30)
    parser.add_argument("--epochs", type=float, default=30.0)
    parser.add_argument("--evaluations", type=int, default=6)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    corpus = load_corpus([options.data], split_column=options.split_column)
    for seed in options.seeds:
        parts = uneven_parts(corpus, options, seed)
        if options.probes:
            probes(options, corpus, parts, seed)
        for variant in options.variants:
            fine_tuned(options, corpus, parts, seed, variant)


def uneven_parts(corpus: Corpus, options: argparse.Namespace, seed: int) -> dict[str, Corpus]:
    """Return training clips of uneven classes, and as many validation and test clips of each class."""
    split = split_corpus(corpus, options.test_fold, options.val_fold)
    assert split.val is not None
    assert split.test is not None
    draw = np.random.default_rng(seed)
    sizes = np.geomspace(*options.sizes, num=len(corpus.labels)).round().astype(int)
    train_sizes = dict(zip(draw.permutation(corpus.labels), sizes.tolist(), strict=True))
    return {
        "train": take(split.train, train_sizes, seed),
        # Validation and test clips do not depend on the seed.
        "val": take(split.val, dict.fromkeys(corpus.labels, options.val_per_class), 0),
        "test": take(split.test, dict.fromkeys(corpus.labels, options.test_per_class), 0),
    }


def take(corpus: Corpus, sizes: dict[str, int], seed: int) -> Corpus:
    """Return at most this many clips of each class."""
    clips = []
    for label, size in sizes.items():
        of_class = [clip for clip in corpus.clips if clip.labels == (label,)]
        order = np.random.default_rng((seed, 1)).permutation(len(of_class))
        clips += [of_class[number] for number in order[:size]]
    return replace(corpus, clips=tuple(clips))


def fine_tuned(
    options: argparse.Namespace,
    corpus: Corpus,
    parts: dict[str, Corpus],
    seed: int,
    variant: str,
) -> None:
    """Train a whole network, and write what it predicts at every evaluation."""
    start = time.process_time()
    train = parts["train"]
    training = starting_settings("finetune", options.init)
    training = replace(
        training,
        seed=seed,
        loader=replace(training.loader, seconds=options.seconds, workers=0),
        train=replace(
            training.train, epochs=options.epochs, lr=options.lr, evaluations=options.evaluations
        ),
    )
    rules = variant.split("+")
    for rule in {"sqrt", "balanced"} & {*rules}:
        training = replace(training, objective=replace(training.objective, loss_weights=rule))
    if "sampling" in rules:
        training = replace(training, loader=replace(training.loader, balanced_sampling=True))
    if "pooling" in rules:
        pooling = linear_probe().pooling
        training = replace(training, objective=replace(training.objective, pooling=pooling))
    if "probe" in rules:
        training = with_head_of_probe(training)
    for rule in rules:
        if rule.startswith("last"):
            layers = int(rule.removeprefix("last"))
            training = replace(
                training, objective=replace(training.objective, trained_layers=layers)
            )
    training = resolved(training, corpus, train, 0, parts["val"])
    objective = classifier(training, options.init)
    for rule in rules:
        if rule.startswith("rank"):
            adapt(objective.encoder, int(rule.removeprefix("rank")), seed)
    both = replace(corpus, clips=parts["val"].clips + parts["test"].clips)
    predictions = Predictions(both, training)
    with tempfile.TemporaryDirectory() as scratch:
        run = Run.create(Path(scratch, "run"), training)
        if "probe" in rules:
            intended = plan(training, train)
            probe_first(run, objective, options.init, train, None, intended, head_start=True)
            predictions(objective.eval(), 0)
            objective.train()
        fit(objective, train, run, evaluate=predictions)
    write(options, corpus, parts, seed, variant, predictions.evaluations, start)


class LowRank(nn.Module):
    """A weight of a linear layer that changes by a matrix of low rank, which starts at zero.

    Source: LoRA (Hu et al. 2021, arXiv 2106.09685), section 4.1, with alpha = rank.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        self.down = nn.Parameter(torch.randn(rank, inputs) / inputs**0.5)
        self.up = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the changed weight, [output, input]."""
        return weight + self.up @ self.down


def adapt(encoder: Encoder, rank: int, seed: int) -> None:
    """Freeze an encoder, but for low-rank changes of the linear layers of its blocks."""
    torch.manual_seed(seed)
    encoder.requires_grad_(False)
    for layer in encoder.ordered_layers():
        for module in [*layer.modules()]:
            if isinstance(module, nn.Linear):
                adapter = LowRank(module.weight, rank)
                parametrize.register_parametrization(module, "weight", adapter)


class Predictions:
    """The classes that a classifier predicts for clips, at every evaluation."""

    def __init__(self, clips: Corpus, training: RunConfig) -> None:
        self.validation = Validation(clips, training, "accuracy")
        self.evaluations: list[list[int]] = []

    def __call__(self, objective: Objective, step: int) -> dict[str, float]:
        """Keep the predictions, and return a number for the log."""
        table = self.validation.table(objective)
        self.evaluations.append(table.rows.argmax(axis=1).tolist())
        return {"evaluated": float(step)}


def probes(
    options: argparse.Namespace, corpus: Corpus, parts: dict[str, Corpus], seed: int
) -> None:
    """Fit linear probes of the frozen encoder with every rule of loss weights."""
    model = load(options.init)
    pooling = linear_probe().pooling
    folder = Path(options.init, "features")
    features = FrozenFeatures.of_model(model, folder, seconds=options.seconds)

    def vectors(part: Corpus) -> ClipVectors:
        return features.vectors(part, pooling)

    start = time.process_time()
    learnt = vectors(parts["train"])
    held_out = np.concatenate([vectors(parts[name]).vectors for name in ("val", "test")])
    targets = label_matrix(learnt.clips, corpus.labels)
    for rule in ("equal", "sqrt", "balanced"):
        weights = None
        if rule != "equal":
            weights = targets @ np.array(class_weights(rule, learnt.clips, corpus.labels))
        head = fit_linear(learnt.vectors, targets, multi_label=False, clip_weights=weights)
        predicted = head.probabilities(held_out).argmax(axis=1).tolist()
        write(options, corpus, parts, seed, f"linear {rule}", [predicted], start)


def write(
    options: argparse.Namespace,
    corpus: Corpus,
    parts: dict[str, Corpus],
    seed: int,
    variant: str,
    evaluations: Sequence[Sequence[int]],
    start: float,
) -> None:
    """Append a line of JSON."""

    def classes(part: Corpus) -> list[int]:
        return [corpus.labels.index(clip.labels[0]) for clip in part.clips]

    record: dict[str, Any] = {
        "data": options.data,
        "sizes": options.sizes,
        "seed": seed,
        "variant": variant,
        "cpu_seconds": round(time.process_time() - start, 1),
        "train_sizes": np.bincount(classes(parts["train"]), minlength=len(corpus.labels)).tolist(),
        "val": classes(parts["val"]),
        "test": classes(parts["test"]),
        "evaluations": evaluations,
    }
    with options.out.open("a") as file:
        file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
