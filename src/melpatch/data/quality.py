"""What is odd about a corpus: silent, clipped or nearly identical clips, names unlike by case."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from melpatch.audio.logmel import LogMel
from melpatch.audio.survey import NO_BIT, SILENT_PEAK, Survey
from melpatch.data.corpus import Corpus

# Shares from which something is told.
_CLIPPED = 1e-3
_OFFSET = 0.05
_OPPOSITE = 1e-3
_RARE_RATE = 0.05
# Sound that was recorded at its rate has a larger share of energy in the upper half of its band.
_EMPTY_BAND = 1e-9
# Largest share of bits in which the signatures of nearly identical clips differ; others differ in
# about half of them.
_NEAR = 0.15
# Smallest share of bits that are not of silence, for a comparison.
_FEWEST_BITS = 0.25
# Files of one length that are compared with each other; of more, only equal signatures are found.
_MOST_COMPARED = 4096


class Finding(NamedTuple):
    """Something odd about a file."""

    path: str
    kind: str
    detail: str


def file_findings(surveys: Mapping[str, Survey]) -> list[Finding]:
    """Return what is odd about files, alone and beside others, sorted by kind."""
    findings = [
        Finding(path, kind, detail) for path, seen in surveys.items() for kind, detail in _odd(seen)
    ]
    findings += _rare_rates(surveys)
    findings += _nearly_identical(surveys)
    return sorted(findings, key=lambda finding: finding.kind)


def _odd(seen: Survey) -> Iterator[tuple[str, str]]:
    """Yield what is odd about a file alone."""
    if seen.channels > 1 and seen.mixed < _OPPOSITE and seen.level > SILENT_PEAK:
        yield (
            "in opposite phase",
            f"the mean of its {seen.channels} channels holds {seen.mixed:.2%} of their energy",
        )
    elif seen.silent:
        yield "silent", f"no sample is further than {seen.peak:.1g} from the mean"
    if seen.clipped > _CLIPPED:
        yield "clipped", f"{seen.clipped:.1%} of its samples are at full scale"
    if abs(seen.offset) > _OFFSET:
        yield "offset from 0", f"the mean of its samples is {seen.offset:.3f}"
    if seen.seconds < LogMel.Config().window_ms / 1000:
        yield "shorter than a frame", f"{1000 * seen.seconds:.1f} ms"
    # The upper half of the band that the rate allows.
    empty = seen.sample_rate / 4
    if not seen.silent and seen.share_above(empty) < _EMPTY_BAND:
        yield (
            "resampled, it seems",
            f"states {seen.sample_rate} Hz, holds nothing above {empty:g} Hz",
        )


def _rare_rates(surveys: Mapping[str, Survey]) -> Iterator[Finding]:
    """Yield the files of rates that few others have."""
    rates = Counter(seen.sample_rate for seen in surveys.values())
    usual, _ = max(rates.items(), key=lambda item: item[1], default=(0, 0))
    for path, seen in surveys.items():
        if rates[seen.sample_rate] < _RARE_RATE * len(surveys):
            yield Finding(path, "of a rare rate", f"{seen.sample_rate} Hz; most have {usual} Hz")


def _nearly_identical(surveys: Mapping[str, Survey]) -> Iterator[Finding]:
    """Yield the files that sound like an earlier one of the same length, at any level."""
    # Only files of the same tenth of a second are compared, pair by pair.
    by_length: dict[tuple[int, int], list[tuple[str, Survey]]] = defaultdict(list)
    for path, seen in surveys.items():
        if not seen.silent:
            by_length[round(10 * seen.seconds), len(seen.signature)].append((path, seen))
    for group in by_length.values():
        if len(group) < 2:
            continue
        signatures = np.stack([np.frombuffer(seen.signature, np.uint8) for _, seen in group])
        for later, earlier in _close_pairs(signatures):
            yield Finding(
                group[later][0],
                "nearly identical",
                f"sounds like {group[earlier][0]}",
            )


def _close_pairs(signatures: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield each row that is close to an earlier one, with the first such row."""
    # Pairs grow with the square; of very many files only equal signatures are found.
    if len(signatures) > _MOST_COMPARED:
        first: dict[bytes, int] = {}
        for number, signature in enumerate(signatures):
            earlier = first.setdefault(signature.tobytes(), number)
            if earlier != number:
                yield number, earlier
        return
    for number in range(1, len(signatures)):
        # Bits of silence say nothing about whether two files are the same.
        heard = (signatures[:number] != NO_BIT) & (signatures[number] != NO_BIT)
        differ = ((signatures[:number] != signatures[number]) & heard).sum(axis=1)
        bits = heard.sum(axis=1)
        # The share of unequal bits among those that both have; too few count as different.
        enough = bits >= _FEWEST_BITS * signatures.shape[1]
        distances = np.where(enough, differ / np.maximum(bits, 1), 1.0)
        nearest = int(distances.argmin())
        if distances[nearest] <= _NEAR:
            yield number, nearest


def case_variants(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of names that differ by case or surrounding blanks only."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        groups[name.casefold().strip()].append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def corpus_notices(corpus: Corpus) -> Iterator[str]:
    """Yield a sentence for each group of labels or splits that differ by case only."""
    for what, names in (("labels", corpus.labels), ("splits", tuple(corpus.splits))):
        for group in case_variants(names):
            shown = ", ".join(map(repr, group))
            yield f"{what} {shown} differ by case only, and count as different"
