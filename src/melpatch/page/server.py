"""The page's server: JSON, sound and spectrograms for three files of plain browser code."""

import shlex
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from melpatch.errors import AudioError, ConfigError, MelpatchError, one_line
from melpatch.faults import machine_fault
from melpatch.outputs import as_file_name
from melpatch.page.finetuning import Finetuning
from melpatch.page.guard import Guard
from melpatch.page.map import map_of
from melpatch.page.query_file import query_of, received
from melpatch.page.session import Card, Session
from melpatch.page.sound import STEP, spectrogram_of, stretch_of, wav_of
from melpatch.page.values import Values
from melpatch.search.nearest import hit

FILES = Path(__file__).parent / "files"
_MOST_CARDS = 60


def make_app(
    session: Session, token: str | None = None, finetuning: Finetuning | None = None
) -> Starlette:
    """Return the server of a session.

    Args:
        session: what it shows.
        token: what requests must bring; None on a loopback address.
        finetuning: what trains the encoder; None: from the run that made the index.
    """
    training = finetuning or Finetuning(session.index, session.labels.path)
    pages = _Pages(session)
    changes = {
        "answer": pages.answer,
        "undo": pages.undo,
        "next": pages.next,
        "search": pages.search,
        "rows": pages.rows,
        "figures": pages.figures,
        "wrong": pages.wrong,
        "keep": pages.keep,
        "train": lambda _: training.start(),
        "stop": lambda _: training.stop(),
    }
    routes = [Route(f"/api/{name}", _json(act), methods=["POST"]) for name, act in changes.items()]
    routes += [Route(f"/{path.name}", _file(path)) for path in FILES.iterdir()]
    routes += [
        Route("/", _file(FILES / "page.html")),
        Route("/api/state", _read(lambda _: JSONResponse(pages.state()))),
        Route("/api/training", _read(lambda _: JSONResponse(training.state()))),
        Route("/api/map", _read(pages.map)),
        Route("/api/query", _bytes(pages.like_file), methods=["POST"]),
        Route("/api/sound/{row:int}", _read(pages.sound)),
        Route("/api/spectrogram/{row:int}", _read(pages.spectrogram)),
    ]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(training.end)

    guard = Middleware(Guard, token=token)
    return Starlette(routes=routes, middleware=[guard], lifespan=lifespan)


class _Pages:
    """What the server answers; the values of a request are checked by the session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._drawing = threading.Lock()
        # Drawn before the first request, which it would delay.
        self._maps = {"pca": _drawn(session, "pca")}

    def state(self) -> dict[str, Any]:
        """Return what the page shows around the cards."""
        session = self._session
        index = session.index
        return {
            "index": str(index.folder),
            "windows": int(index.latest.sum()),
            "recordings": len(index.numbers_of),
            "window": index.identity.window,
            "labels": str(session.labels.path),
            "counts": session.counts(),
        }

    def map(self, request: Request) -> Response:
        """Return the map of the collection."""
        by = request.query_params.get("by", "pca")
        if by not in self._maps:
            # UMAP takes a minute; whoever asks for it meanwhile waits instead of starting it again.
            with self._drawing:
                if by not in self._maps:
                    self._maps[by] = _drawn(self._session, by)
        return JSONResponse(self._maps[by])

    def like_file(self, request: Request, content: bytes) -> Response:
        """Return what sounds like a file that was sent."""
        name = one_line(request.query_params.get("name", "the file"), 200)
        session = self._session
        query = query_of(session.model, session.index.identity, name, content)
        cards = session.search(query.vectors, _count(Values()), [])
        facts = {"seconds": query.seconds, "whole": query.whole}
        return JSONResponse(_cards(cards) | facts)

    def answer(self, values: Values) -> dict[str, Any]:
        """Write an answer down, and learn from it."""
        label = values.text("label")
        row = values.whole("row")
        self._session.answer(row, label, values.text("answer"), values.text("who"))
        return {"counts": self._session.counts(), "figures": self._session.figures(label)}

    def undo(self, values: Values) -> dict[str, Any]:
        """Take the latest answer of a person back."""
        row = self._session.undo(values.text("who"))
        return {"row": row, "counts": self._session.counts()}

    def next(self, values: Values) -> dict[str, Any]:
        """Return clips to answer next."""
        chosen, cards = self._session.next(
            values.text("label"), values.text("by"), _count(values), values.text("who")
        )
        return _cards(cards) | {"chosen": chosen}

    def search(self, values: Values) -> dict[str, Any]:
        """Return what sounds like a row, a stretch of its recording, or a label."""
        count = _count(values)
        if "label" in values:
            return _cards(self._session.like_label(values.text("label"), count))
        row = values.whole("row")
        if "start" in values:
            start, end = values.number("start"), values.number("end")
            return _cards(self._session.like_stretch(row, start, end, count))
        return _cards(self._session.like_row(row, count))

    def rows(self, values: Values) -> dict[str, Any]:
        """Return some rows, as from the map."""
        index = self._session.index
        rows = values.wholes("rows")[:_MOST_CARDS]
        hits = [hit(index, row, float("inf")) for row in rows if 0 <= row < len(index)]
        return _cards(self._session.cards(hits))

    def figures(self, values: Values) -> dict[str, Any]:
        """Return precision and recall of a label's head."""
        return {"figures": self._session.figures(values.text("label"))}

    def wrong(self, values: Values) -> dict[str, Any]:
        """Return the training clips that a label's head gets wrong."""
        return _cards(self._session.wrong(values.text("label"))[:_MOST_CARDS])

    def keep(self, values: Values) -> dict[str, Any]:
        """Keep the heads as a run in the folder of the index."""
        name = as_file_name(values.text("name") or "head")
        out = self._session.index.folder / "heads" / name
        run = self._session.keep(out, values.numbers("thresholds"))
        folder = shlex.quote(str(run.folder))
        return {
            "run": str(run.folder),
            "predict": f"melpatch predict {folder} recordings/ --out p.csv",
        }

    def sound(self, request: Request) -> Response:
        """Return the sound of a row."""
        stretch = self._stretch(request)
        return Response(wav_of(*stretch), media_type="audio/wav")

    def spectrogram(self, request: Request) -> Response:
        """Return the spectrogram of a row: a byte per mel bin and frame, the lowest bin first."""
        path, start, end = self._stretch(request)
        front_end = self._session.model.objective.front_end
        mels, floor = spectrogram_of(front_end, path, start, end)
        config = front_end.config
        headers = {
            "x-mels": len(mels),
            "x-floor": floor,
            "x-step": STEP,
            "x-start": start,
            "x-hop": front_end.hop_seconds,
            "x-low": config.low_hz,
            "x-high": config.top_hz,
        }
        texts = {name: str(value) for name, value in headers.items()}
        return Response(mels.tobytes(), media_type="application/octet-stream", headers=texts)

    def _stretch(self, request: Request) -> tuple[Path, float, float]:
        row = request.path_params["row"]
        self._session.shown_path(row)
        around = Values(dict(request.query_params)).number("around", "0")
        return stretch_of(self._session.index, row, around)


def _drawn(session: Session, by: str) -> dict[str, Any]:
    rows, places = map_of(session.index, by)
    return {"rows": rows.tolist(), "places": places.round(4).tolist()}


def _count(values: Values) -> int:
    return max(1, min(values.whole("count", 12), _MOST_CARDS))


def _cards(cards: list[Card]) -> dict[str, Any]:
    return {"cards": [asdict(card) for card in cards]}


Endpoint = Callable[[Request], Awaitable[Response]]


def _file(path: Path) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        return FileResponse(path)

    return endpoint


def _read(make: Callable[[Request], Response]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        return await run_in_threadpool(_answered, lambda: make(request))

    return endpoint


def _json(act: Callable[[Values], dict[str, Any]]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        try:
            values = await request.json()
        except ValueError:
            values = None
        if not isinstance(values, dict):
            return JSONResponse({"error": "the request is no JSON object"}, status_code=400)
        return await run_in_threadpool(_answered, lambda: JSONResponse(act(Values(values))))

    return endpoint


def _bytes(act: Callable[[Request, bytes], Response]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        try:
            content = await received(request)
        except ConfigError as error:
            return JSONResponse({"error": str(error)}, status_code=413)
        return await run_in_threadpool(_answered, lambda: act(request, content))

    return endpoint


def _answered(make: Callable[[], Response]) -> Response:
    """Return a response; what a person can put right is an error of one line."""
    try:
        return make()
    except AudioError as error:
        return JSONResponse({"error": one_line(str(error))}, status_code=404)
    except MelpatchError as error:
        return JSONResponse({"error": one_line(str(error))}, status_code=400)
    except OSError as error:
        reason = machine_fault(error) or f"{error.filename}: {error.strerror}"
        return JSONResponse({"error": one_line(reason)}, status_code=507)
