"""Open a page in the browser to search, listen, label and teach a classifier."""

import gc
import secrets
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from melpatch.config import check
from melpatch.errors import ConfigError
from melpatch.progress import notice
from melpatch.search.approximate import opened
from melpatch.search.build import model_of
from melpatch.search.index import LABELS, Index
from melpatch.search.label_file import open_labels

if TYPE_CHECKING:
    from starlette.applications import Starlette


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to show, and to whom."""

    index: tyro.conf.Positional[Path]
    """Folder of melpatch index."""
    labels: Path | None = None
    """File of labels to add to; by default labels.csv in the index."""
    host: str = "127.0.0.1"
    """Address to listen on. The default is for this machine alone; any other needs the token that
    is printed, and is not encrypted."""
    port: int = 8765
    """Port to listen on; 0 takes a free one."""
    approximate: bool = False
    """Search by the graphs of melpatch index --approximate, at the recall that is printed; what is
    taught is still compared with all vectors."""
    run: Path | None = None
    """The run of the index, if it was moved since."""
    trust_code: bool = False
    """Allow the run to name code outside melpatch, such as your own encoder; that code is run."""

    def __post_init__(self) -> None:
        """Check the port."""
        check(0 <= self.port < 1 << 16, "port", self.port, "0 to 65535")


def run(config: Config) -> None:
    """Serve the page until it is interrupted."""
    try:
        import uvicorn

        from melpatch.page.finetuning import Finetuning
        from melpatch.page.guard import is_loopback
        from melpatch.page.server import make_app
        from melpatch.page.session import Session
    except ImportError as error:
        raise ConfigError(
            "the page needs Starlette and uvicorn; install them with: pip install 'melpatch[page]'"
        ) from error
    index = Index(config.index)
    graphs = opened(index) if config.approximate else None
    with ExitStack() as stack:
        labels = stack.enter_context(open_labels(config.labels or config.index / LABELS))
        model = model_of(index, run=config.run, trust_code=config.trust_code)
        token = None if is_loopback(config.host) else secrets.token_urlsafe(24)
        training = Finetuning(index, labels.path, config.run, config.trust_code)
        app: Starlette = make_app(Session(index, labels, model, graphs), token, training)
        server = uvicorn.Server(
            uvicorn.Config(app, config.host, config.port, log_level="warning", server_header=False)
        )
        listening = stack.enter_context(_listen(config.host, config.port))
        port = listening.getsockname()[1]
        query = f"/?token={token}" if token else "/"
        name = f"[{config.host}]" if ":" in config.host else config.host
        notice(f"open http://{name}:{port}{query} (Ctrl-C ends it)")
        # What is loaded stays: collecting it again would hold up an answer for 0.15 s now and then.
        gc.collect()
        gc.freeze()
        server.run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        ConfigError: the address is not of this machine, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port}: {error.strerror}; give an address of this machine, and a "
            "free --port, such as 0"
        ) from error
