"""Score a run on labelled audio: a classifier by its predictions, an encoder by probes or by fine-tuning.

>>> import melpatch
>>> records = melpatch.evaluate("runs/a", "labels.csv", ["knn", "linear"], settings={"k": 20})
>>> records["linear"]["value"]
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import zip_longest
from os import PathLike
from pathlib import Path
from typing import Any

from melpatch import registry
from melpatch.config import check
from melpatch.counted import agreeing, counted
from melpatch.data.manifest import load_corpus
from melpatch.default_dtype import float32_by_default
from melpatch.evaluation.against import request_against
from melpatch.evaluation.caveats import warn_about_scores
from melpatch.evaluation.frozen_features import FrozenFeatures
from melpatch.evaluation.job import EvaluationJob
from melpatch.evaluation.kept_probe import check_kept, keep_from_job
from melpatch.evaluation.probe import Probe
from melpatch.evaluation.protocol import Protocol
from melpatch.evaluation.report import record_in, refuse_to_overwrite, score
from melpatch.evaluation.request import EvaluationRequest, protocol_folder
from melpatch.evaluation.scores import Scores
from melpatch.evaluation.select import default_protocols, linear_probe, select_protocols
from melpatch.inference.model import Model, load
from melpatch.inference.network import Precision
from melpatch.inference.novelty import FALSE_ALARMS
from melpatch.only_writer import only_writer
from melpatch.opening import require_inside
from melpatch.outputs import check_output_folder
from melpatch.progress import notice
from melpatch.training.config import build
from melpatch.weight_files import is_weights, require_run_folder


@float32_by_default()
def evaluate(
    run: str | PathLike[str],
    data: str | PathLike[str] | Sequence[str | PathLike[str]],
    protocols: str | Sequence[str] = (),
    *,
    settings: Mapping[str, Any] | None = None,
    labels: str | PathLike[str] | None = None,
    split: str | int | Sequence[str | int] | None = None,
    split_column: str = "split",
    label_column: str = "label",
    group_column: str = "group",
    labels_per_class: int | None = None,
    seeds: Sequence[int] = (),
    random_weights: bool = False,
    floors: bool = True,
    against: str | PathLike[str] | None = None,
    keep: str | PathLike[str] | None = None,
    threshold: float | None = None,
    false_alarms: float = FALSE_ALARMS,
    precision: Precision = "32-true",
    batch_size: int = 32,
    workers: int = 0,
    out: str | PathLike[str] | None = None,
    features_dir: str | PathLike[str] | None = None,
    overwrite: bool = False,
    pictures: bool = True,
    trust_code: bool = False,
) -> Scores:
    """Score a run on labelled audio, write the scores, and return the record of each protocol by its name.

    Args:
        run: run folder, or a model of other code, see :func:`melpatch.load`.
        data: labelled folders or CSV files.
        protocols: names or code; by default knn and linear, or as_trained for a classifier.
        settings: changed settings by name; each goes to the protocols that have it.
        labels: file of the classes of a model of other code that names none.
        split: splits or folds to score, each by itself; by default test, or else every fold.
        split_column: column of the CSV file that holds the split or fold.
        label_column: column of the CSV file that holds the labels.
        group_column: column of the CSV file that holds recordings, speakers or patients.
        labels_per_class: train on this many clips per class, drawn by the seed; None for all.
        seeds: one repetition each; by default as many as the protocol has, from 0.
        random_weights: score the same network at random weights instead.
        floors: score the same clips with floors too, see :mod:`melpatch.evaluation.floors`.
        against: another run, scored on the same clips: the records then hold a paired comparison.
        keep: run folder to write for the linear probe of one split and seed, a classifier.
        threshold: lowest probability of a label of a classifier, as in predict; None for its own.
        false_alarms: share of clips that a classifier may call none of its classes, as in predict.
        precision: arithmetic of the frozen network, see :func:`melpatch.load`.
        batch_size: windows per batch.
        workers: decoding processes.
        out: folder for the results; by default in RUN/evaluation, named after what is scored.
        features_dir: folder that keeps frozen features for the next time; by default RUN/features.
        overwrite: replace scores of something else, and files of another origin, in ``out``.
        pictures: draw confusion, scores per class and reliability beside the scores.
        trust_code: whether the run may name code outside melpatch, which is then run.

    Raises:
        MelpatchError: something cannot be scored as asked; nothing is written then.
    """
    request = EvaluationRequest(
        run=Path(run),
        data=_listed(data),
        split=_listed(split),
        split_column=split_column,
        label_column=label_column,
        group_column=group_column,
        labels_per_class=labels_per_class,
        seeds=tuple(seeds),
        random_weights=random_weights,
        threshold=threshold,
        false_alarms=false_alarms,
        precision=precision,
        batch_size=batch_size,
        workers=workers,
        out=None if out is None else Path(out),
        features_dir=_features_dir(features_dir, run, out),
        labels=None if labels is None else Path(labels),
        overwrite=overwrite,
        pictures=pictures,
        trust_code=trust_code,
    )
    other = _other_request(request, against, features_dir)
    return _evaluate(request, _listed(protocols), settings, floors=floors, other=other, keep=keep)


def _other_request(
    request: EvaluationRequest,
    against: str | PathLike[str] | None,
    features_dir: str | PathLike[str] | None,
) -> EvaluationRequest | None:
    """Return what is asked of the other run, if there is one."""
    if against is None:
        return None
    kept = _features_dir(features_dir, against, request.out)
    return request_against(request, Path(against), kept)


def _evaluate(
    request: EvaluationRequest,
    names: tuple[str, ...],
    settings: Mapping[str, Any] | None,
    *,
    floors: bool,
    other: EvaluationRequest | None,
    keep: str | PathLike[str] | None,
) -> Scores:
    check(len({*names}) == len(names), "protocol", names, "each once")
    trained = load(
        request.run,
        precision=request.precision,
        labels=request.labels,
        trust_code=request.trust_code,
    )
    protocols = select_protocols(names or default_protocols(trained), settings or {})
    request = _beside_others(request, protocols)
    jobs = _jobs(request, trained, protocols)
    check_output_folder(request.folder, request.absolute_data)
    for job in jobs if request.out is None else ():
        require_inside(request.run, job.out, "remove the link, or give --out")
    if not request.overwrite:
        refuse_to_overwrite(jobs, own_folder=request.out is None)
    request.check_writable(
        with_features=floors or any(isinstance(item, Probe) for item in protocols)
    )
    if keep is not None:
        check_output_folder(Path(keep), request.absolute_data, flag="--keep")
        check_kept(protocols, jobs, Path(keep))
    others: list[EvaluationJob] = []
    if other is not None:
        opposed = load(other.run, precision=trained.precision, trust_code=other.trust_code)
        others = _jobs(_beside_others(other, protocols), opposed, protocols)
    warn_about_scores([*protocols, *protocols][: len(jobs + others)], jobs + others)
    probe = linear_probe() if floors else None
    records = Scores()
    with ExitStack() as stack:
        for job in jobs + others:
            stack.enter_context(only_writer(job.out))
        for protocol, job, other_job in zip_longest(protocols, jobs, others):
            record = score(protocol, job, probe, other_job)
            records[registry.name_of(type(protocol))] = record
        # Under the locks, so that scores and classifier are of the same evaluation.
        if keep is not None:
            (kept,) = protocols
            keep_from_job(kept, jobs[0], Path(keep))
    return records


def _features_dir(
    given: str | PathLike[str] | None, run: str | PathLike[str], out: str | PathLike[str] | None
) -> Path:
    """Return the folder that keeps features: that of a run, or in ``out`` for a model of other code.

    Raises:
        ConfigError: the model of other code is scored without ``out``.
    """
    if out is None:
        require_run_folder(Path(run), "scores", "give --out, or ")
    beside = run
    if out is not None and is_weights(str(run)):
        beside = out
    return Path(given or Path(beside, "features"))


def _beside_others(request: EvaluationRequest, protocols: Sequence[Protocol]) -> EvaluationRequest:
    """Return the request with a folder of its own if other data have the default one."""
    if request.out is not None:
        return request
    for protocol in protocols:
        record = record_in(request.folder / protocol_folder(protocol))
        data = tuple((record or {}).get("data", ()))
        # On macOS and Windows the folders of names that differ by their case alone are one.
        other_name = record is not None and record["name"] != request.name
        if other_name or (data and data != request.absolute_data):
            scored: Any = request.absolute_data
            if other_name:
                scored = (request.absolute_data, request.name)
            digest = hashlib.blake2b(repr(scored).encode(), digest_size=4)
            return replace(request, suffix=f"-{digest.hexdigest()}")
    return request


def _jobs(
    request: EvaluationRequest, trained: Model, protocols: Sequence[Protocol]
) -> list[EvaluationJob]:
    """Return the job of each protocol, all on the same corpus, network and features."""
    corpus = load_corpus(
        request.data,
        split_column=request.split_column,
        label_column=request.label_column,
        group_column=request.group_column,
    ).on_channel(trained.config.channel)
    if corpus.rejected:
        files = len(corpus.rejected)
        notice(
            f"{counted(files, 'file')} of {corpus.shown_name} cannot be read and "
            f"{agreeing(files, 'is', 'are')} not scored; see scores.json"
        )
    model = trained
    if request.random_weights:
        model = Model(trained.config, build(trained.config), precision=trained.precision)
    features = FrozenFeatures.of_model(
        model, request.features_dir, batch_size=request.batch_size, workers=request.workers
    )
    return [
        EvaluationJob(
            run=request.run,
            model=model,
            corpus=corpus,
            scored_splits=request.split,
            seeds=request.seeds or tuple(range(protocol.num_seeds)),
            labels_per_class=request.labels_per_class,
            features=features,
            out=request.folder / protocol_folder(protocol),
            name=request.name,
            data=request.absolute_data,
            random_weights=request.random_weights,
            batch_size=request.batch_size,
            workers=request.workers,
            pictures=request.pictures,
            threshold=request.threshold,
            false_alarms=request.false_alarms,
        )
        for protocol in protocols
    ]


def _listed(
    values: str | int | PathLike[str] | Sequence[str | int | PathLike[str]] | None,
) -> tuple[str, ...]:
    """Return one value or several as text, such as the numbers of folds; None is no value."""
    if values is None:
        return ()
    if isinstance(values, str | int | PathLike):
        return (str(values),)
    return tuple(str(value) for value in values)
