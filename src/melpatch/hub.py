"""Writing to the Hugging Face Hub: a folder becomes one commit, and errors one line with the remedy."""

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from melpatch.config import check
from melpatch.errors import ConfigError, MelpatchError

_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
_LOG_IN = "log in with hf auth login, or set HF_TOKEN"
_REMEDIES = {
    401: f"the Hub does not know you; {_LOG_IN}, with a token that may write",
    403: "your token may not write there; give one with write access to this owner, or another name",
    404: f"there is no such repository or branch that you may see; check the name, and {_LOG_IN}",
}


def require_repository(name: str) -> None:
    """Raise ConfigError unless a text is the name of a repository."""
    check(_NAME.fullmatch(name) is not None, "repository", name, "owner/name")


def push(
    folder: Path, repository: str, *, private: bool, revision: str | None, message: str
) -> str:
    """Write the files of a folder to a repository in one commit, and return the commit's address.

    The repository and the branch are created if they do not exist. Files of the same names are
    replaced; others stay.

    Args:
        folder: the files, without sub-folders.
        repository: as ``owner/name``.
        private: whether a new repository can be seen by its owner only.
        revision: the branch; None for the main one.
        message: of the commit.

    Raises:
        ConfigError: huggingface_hub is not installed.
        MelpatchError: the Hub cannot be reached, or refuses.
    """
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise ConfigError(
            "melpatch push needs huggingface_hub; pip install 'melpatch[hub]'"
        ) from error
    api = hub.HfApi()
    files = [
        hub.CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=path)
        for path in sorted(folder.iterdir())
    ]
    with _in_one_line(repository):
        # Without --private the owner's own default counts.
        api.create_repo(repository, private=private or None, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        commit = api.create_commit(repository, files, commit_message=message, revision=revision)
    return str(commit.commit_url)


@contextmanager
def _in_one_line(repository: str) -> Iterator[None]:
    """Turn the errors of huggingface_hub into one line with the remedy.

    Raises:
        MelpatchError: the Hub cannot be reached, or refuses.
    """
    errors = importlib.import_module("huggingface_hub.errors")
    try:
        yield
    except errors.OfflineModeIsEnabled as error:
        raise MelpatchError(
            f"{repository}: HF_HUB_OFFLINE is set; unset it to push, or write a folder with "
            "melpatch export"
        ) from error
    except (OSError, RuntimeError, errors.HTTPError) as error:
        status = _status(error)
        if status in _REMEDIES:
            raise MelpatchError(f"{repository}: {status}, {_REMEDIES[status]}") from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if status is not None:
            raise MelpatchError(
                f"{repository}: the Hub answers {status} ({reason:.200}); try again later"
            ) from error
        raise MelpatchError(
            f"{repository}: cannot be pushed ({type(error).__name__}: {reason:.200}); check the "
            "network, then give the command again"
        ) from error


def _status(error: BaseException | None) -> int | None:
    """Return the status of the Hub's answer, of an error or of the one that it was raised from."""
    while error is not None:
        response: Any = getattr(error, "response", None)
        if response is not None:
            return int(response.status_code)
        error = error.__cause__
    return None
