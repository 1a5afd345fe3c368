"""What a request to the page's server says, checked as it is read."""

from math import isfinite, nan
from typing import Any

from melpatch.config import check


class Values(dict[str, Any]):
    """What a request says, checked as it is read: anything else is a ConfigError of one line."""

    def text(self, name: str) -> str:
        """Return a text."""
        value = self.get(name)
        check(isinstance(value, str), name, value, "a text")
        return str(value)

    def number(self, name: str, default: Any = None) -> float:
        """Return a finite number."""
        value = self.get(name, default)
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = nan
        check(isfinite(number), name, value, "a finite number")
        return number

    def whole(self, name: str, default: Any = None) -> int:
        """Return a whole number."""
        number = self.number(name, default)
        check(number == int(number), name, number, "a whole number")
        return int(number)

    def wholes(self, name: str) -> list[int]:
        """Return whole numbers."""
        value = self.get(name)
        fits = isinstance(value, list) and all(isinstance(item, int) for item in value)
        check(fits, name, value, "a list of whole numbers")
        return list(value or [])

    def numbers(self, name: str) -> dict[str, float]:
        """Return numbers by names."""
        value = self.get(name)
        check(isinstance(value, dict), name, value, "numbers by labels")
        given = Values(value or {})
        return {key: given.number(key) for key in given}
