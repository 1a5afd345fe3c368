"""Transfers of no more bytes than were stated, and not endlessly slow, whatever a server sends."""

import time

from fsspec.callbacks import Callback

from melpatch.errors import AudioError, UnreachableError

CHECK_URL = "check the URL and your credentials, or copy it there again"


# A server that sends fewer bytes than these in these seconds could take for ever.
_SLOW_BYTES = 300 << 10
_SLOW_SECONDS = 300.0


class BoundedTransfer(Callback):  # type: ignore[misc] # fsspec has no types
    """Counts the bytes of a transfer; ends it if there are more than expected, or hardly any."""

    def __init__(self, url: str, most: int) -> None:
        super().__init__()
        self._since = time.monotonic()
        self._before = 0
        self._url = url
        self._most = most
        self._received = 0

    def relative_update(self, inc: int = 1) -> None:
        """Count the next bytes."""
        self._received += inc
        if self._received > self._most:
            raise too_large(self._url, self._most)
        now = time.monotonic()
        if now - self._since >= _SLOW_SECONDS:
            if self._received - self._before < _SLOW_BYTES:
                raise _too_slow(self._url)
            self._since = now
            self._before = self._received

    def absolute_update(self, value: int) -> None:
        """Take the number of bytes so far."""
        self._received = 0
        self.relative_update(value)

    def set_size(self, size: int | None) -> None:
        """Take the size that the server announces."""
        if size is not None and size > self._most:
            raise too_large(self._url, self._most)


class TooLargeError(AudioError):
    """A store sends more than it stated, or than is ever expected."""


def too_large(url: str, most: int) -> TooLargeError:
    """Return the error for a file that is larger than it may be."""
    reason = f"is larger than the {max(most, 0):,} bytes that it may have"
    return TooLargeError(url, reason, f"the server sends something else than stated; {CHECK_URL}")


def _too_slow(url: str) -> UnreachableError:
    sent = f"fewer than {_SLOW_BYTES >> 10} KiB in {_SLOW_SECONDS:.0f} s"
    return UnreachableError(url, f"comes too slowly, {sent}", "try again later, or from elsewhere")
