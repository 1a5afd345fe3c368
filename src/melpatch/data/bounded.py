"""Transfers of no more bytes than were stated, whatever a server sends."""

from fsspec.callbacks import Callback

from melpatch.errors import AudioError

CHECK_URL = "check the URL and your credentials, or copy it there again"


class BoundedTransfer(Callback):  # type: ignore[misc] # fsspec has no types
    """Counts the bytes of a transfer, and ends it when there are more than expected."""

    def __init__(self, url: str, most: int) -> None:
        super().__init__()
        self._url = url
        self._most = most
        self._received = 0

    def relative_update(self, inc: int = 1) -> None:
        """Count the next bytes."""
        self._received += inc
        if self._received > self._most:
            raise too_large(self._url, self._most)

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
