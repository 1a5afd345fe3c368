"""Calibrate a classifier that is trained already, such as one of others, on validation clips."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from melpatch.config import check_batch_size, check_workers
from melpatch.data.clip import Clip
from melpatch.data.corpus import Corpus
from melpatch.data.manifest import load_corpus
from melpatch.data.split_roles import role_of
from melpatch.errors import ConfigError, DataError
from melpatch.evaluation.calibrate import labels_of, learn_calibration, of_known_classes
from melpatch.evaluation.provenance import run_trained_on
from melpatch.evaluation.thresholds import ThresholdRule
from melpatch.inference.calibration import CALIBRATION, Calibration
from melpatch.inference.corpus import CorpusPass
from melpatch.inference.model import load
from melpatch.only_writer import only_writer
from melpatch.progress import notice
from melpatch.weight_files import require_run_folder


@dataclass(frozen=True, kw_only=True)
class CalibrateConfig:
    """Which classifier to calibrate, on which clips, and when it gives a label."""

    run: tyro.conf.Positional[Path]
    """Run folder of a classifier, which takes what is learnt."""
    data: tuple[str, ...]
    """Labelled folders or CSV files."""
    val_fold: str | None = None
    """Split or fold to learn from; by default val, or everything where there are no splits."""
    train_fold: str | None = None
    """Split or fold that the classifier was trained on, which says what is unlike it; by default
    train, where there is one."""
    split_column: str = "split"
    """Column of the CSV files that holds the split or fold."""
    label_column: str = "label"
    """Column of the CSV files that holds the labels."""
    thresholds: str = "auto"
    """When predict gives a label: none (the most probable one, or those of 0.5 or more), f1 (the
    best F1 of each class), precision=0.9 (the most labels of which 0.9 are right, for each class);
    auto is f1 where clips may have several labels, else none."""
    batch_size: int | None = None
    """Windows at a time; by default 8, or 64 on a GPU."""
    workers: int = 0
    """Processes that decode."""
    overwrite: bool = False
    """Replace the calibration that the run has."""
    trust_code: bool = False
    """Allow the run to name code outside melpatch, such as your own encoder; that code is run."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        ThresholdRule.parse(self.thresholds)
        check_batch_size(self.batch_size)
        check_workers(self.workers)


def calibrate_run(config: CalibrateConfig) -> Calibration:
    """Learn temperature, thresholds and novelty, and write ``calibration.safetensors`` into the run.

    Raises:
        ConfigError: the run has a calibration already, or is no classifier.
        DataError: there is no such split, or no clip of the run's classes in it.
    """
    require_run_folder(config.run, "temperature and thresholds")
    path = config.run / CALIBRATION
    if path.exists() and not config.overwrite:
        raise ConfigError(f"{path}: exists; give --overwrite to replace it")
    model = load(config.run, trust_code=config.trust_code)
    model.network.classifier()
    corpus = load_corpus(
        config.data, split_column=config.split_column, label_column=config.label_column
    ).on_channel(model.config.channel)
    val = _validation(corpus, config, model.labels)
    train = _training(corpus, config)
    _warn_of_trained_clips(config.run, val)
    how = CorpusPass(
        model.sample_rate,
        model.seconds,
        config.batch_size or model.default_batch_size,
        config.workers,
        "calibrating",
    )
    with only_writer(path):
        calibration = learn_calibration(model, val, train, config.thresholds, how)
        calibration.save(config.run)
    if not train:
        notice(
            f"{corpus.shown_name}: no clips of split train, so that what is unlike the training "
            "clips is not known; name another with --train-fold"
        )
    notice(f"written: {path}; predict uses it")
    return calibration


def _validation(
    corpus: Corpus, config: CalibrateConfig, labels: tuple[str, ...]
) -> tuple[Clip, ...]:
    """Return the clips to learn from, which have labels of the classifier.

    Raises:
        DataError: there are none.
    """
    if config.val_fold is None and not any(corpus.splits):
        chosen = corpus.clips
        notice(f"{corpus.shown_name}: has no splits; all {len(chosen)} clips calibrate")
    else:
        chosen = _of_split(corpus, config.val_fold or "val", "--val-fold")
    known = of_known_classes(chosen, set(labels))
    others = sorted(labels_of(chosen) - set(labels))
    if not known:
        have = f"labels such as {others[0]!r}" if others else "no labels"
        raise DataError(
            f"{corpus.shown_name}: none of {len(chosen)} clips is of {config.run}'s classes, since "
            f"they have {have}; the classes are: {', '.join(labels[:10])}"
            f"{', ...' if len(labels) > 10 else ''}"
        )
    if len(known) < len(chosen):
        notice(
            f"{len(chosen) - len(known)} of {len(chosen)} clips are left out: they have no label, "
            "or one that is not among the classes"
        )
    return known


def _training(corpus: Corpus, config: CalibrateConfig) -> tuple[Clip, ...]:
    if config.train_fold is not None:
        return _of_split(corpus, config.train_fold, "--train-fold")
    return tuple(clip for clip in corpus.clips if role_of(clip.split) == "train")


def _of_split(corpus: Corpus, name: str, flag: str) -> tuple[Clip, ...]:
    """Return the clips of a split.

    Raises:
        DataError: there is none.
    """
    try:
        return (*corpus.select([name]).clips,)
    except DataError as error:
        raise DataError(f"{error}; name another with {flag}") from error


def _warn_of_trained_clips(run: Path, val: tuple[Clip, ...]) -> None:
    """Tell where the answers are to clips that the run has seen, which makes them too certain."""
    trained = run_trained_on(run, val)
    seen = trained.keys.get(str(run), frozenset())
    if seen:
        notice(
            f"{run} was trained on {len(seen)} of the {len(val)} clips, so that its calibrated "
            "answers will be too certain; give clips that it has not seen"
        )
