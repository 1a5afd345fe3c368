"""Settings of events for the commands that find them."""

from dataclasses import dataclass
from math import inf
from pathlib import Path

from melpatch.config import check
from melpatch.errors import ConfigError
from melpatch.inference.events import EventRule
from melpatch.workflows.events import Program


@dataclass(frozen=True, kw_only=True)
class EventRuleConfig:
    """What makes an event of scores."""

    event_release: float = 0.9
    """Share of its threshold that an event must keep to last (hysteresis)."""
    event_shortest: float = 0.0
    """Seconds that an event lasts at least."""
    event_gap: float = 0.0
    """Seconds between two events of a label up to which they become one."""
    true_events: tuple[str, ...] = ()
    """Labelled stretches (CSV with path, start, end and label, Raven or Audacity) to score events
    against: F1 of events whose start and end are within 0.2 s of the true ones, the end also within
    a fifth of the length, as in DCASE's challenges."""

    def event_rule(self) -> EventRule:
        """Return what makes an event.

        Raises:
            ConfigError: a setting is out of range.
        """
        check(0 < self.event_release <= 1, "event_release", self.event_release, "above 0, up to 1")
        for name in ("event_shortest", "event_gap"):
            value = getattr(self, name)
            check(0 <= value < inf, name, value, "seconds, 0 or more")
        return EventRule(
            release=self.event_release, shortest=self.event_shortest, gap=self.event_gap
        )


@dataclass(frozen=True, kw_only=True)
class EventConfig(EventRuleConfig):
    """What to write of events and of the scores along a recording."""

    events: Path | None = None
    """CSV to write of events, stretches with a label: path, start, end, label and score (the largest
    probability in it). Overlapping windows are averaged to frames of --hop. With --events-for raven
    or audacity, a folder with a file for each recording."""
    events_for: Program = "csv"
    """What --events is written for: csv; raven, selection tables; audacity, label tracks."""
    frames: Path | None = None
    """Table to write of the probabilities along recordings, which events are found in: a row for
    each --hop seconds, with path, start, end and a column per class. CSV, or by its name .npz or
    .parquet."""

    def check_events(self, hop: float | None) -> None:
        """Raise ConfigError if settings are missing or out of range.

        Args:
            hop: seconds between the starts of windows.
        """
        self.event_rule()
        needs: dict[str, tuple[str, object]] = {"events": ("hop", hop), "frames": ("hop", hop)}
        needs["true_events"] = ("events", self.events)
        for name, (needed, value) in needs.items():
            if getattr(self, name) and value is None:
                flag = name.replace("_", "-")
                raise ConfigError(f"--{flag} is given but --{needed} is not; give both")
