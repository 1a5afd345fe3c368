"""Which URLs are opened, and what the names behind them may be.

A list of clips may come from anybody, and fsspec opens far more than stores of files: a chain such
as ``reference://x::http://HOST/refs.json`` reads environment variables into the address that it
fetches. Only plain URLs of known stores are opened, and what they list are plain names.
"""

import os
import re

from melpatch.errors import ConfigError, DataError, shortened

PROTOCOLS = ("file", "http", "https", "s3", "s3a", "gs", "gcs", "hf")
"""Protocols that are always allowed."""
ALLOWED = "MELPATCH_PROTOCOLS"
"""Environment variable with further ones, separated by commas, such as ``abfs,hdfs``."""
_PROTOCOL = re.compile(r"[a-z][a-z0-9+.-]*")
_SHARD = re.compile(r"shard-[0-9]{6,12}\.tar")


def require_plain_url(url: str) -> str:
    """Return the protocol of a URL.

    Raises:
        DataError: its protocol is not allowed, or it is a chain of several.
    """
    shown = shortened(url, typed=True)
    if "::" in url:
        raise DataError(
            f"{shown}: a chain of URLs, which is never opened; give one URL without '::'"
        )
    if any(ord(letter) < 32 for letter in url):
        raise DataError(f"{shortened(url)}: not a URL, since it has control characters; correct it")
    protocol = url.partition("://")[0]
    if protocol not in allowed_protocols():
        allowed = ", ".join(allowed_protocols())
        raise DataError(
            f"{shown}: {shortened(protocol, 30, typed=True)}:// is not opened; allowed: {allowed}; "
            f"if you trust the list that holds it, name the protocol in {ALLOWED}"
        )
    return protocol


def allowed_protocols() -> tuple[str, ...]:
    """Return the protocols that may be opened: the known ones, and those that the user adds."""
    added = [name.strip() for name in os.environ.get(ALLOWED, "").split(",") if name.strip()]
    for name in added:
        if not _PROTOCOL.fullmatch(name):
            raise ConfigError(
                f"{ALLOWED} has {shortened(name)}; allowed: names of protocols without ://, "
                "separated by commas"
            )
    return (*PROTOCOLS, *added)


def is_shard_name(name: str) -> bool:
    """Return whether this is a name that shards have, without any folder."""
    return _SHARD.fullmatch(name) is not None
