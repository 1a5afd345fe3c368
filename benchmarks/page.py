"""Time every kind of request that the page sends: one JSON line per kind, and the peak of memory.

python benchmarks/page.py --rows 100000

Vectors are random; some recordings are sounds that are made up here, so that sound, spectrograms and
searches for stretches are timed too. Requests pass through Starlette's test client in this process, so
that the peak is that of server, client and model together.
"""

import argparse
import gc
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from search import Times, tell, timed, timed_once, write_index
from starlette.testclient import TestClient

from melpatch.audio.logmel import LogMel
from melpatch.data.loader import LoaderConfig
from melpatch.encoders.vit import ViT
from melpatch.inference.model import Model, load
from melpatch.objectives.ssast import SSAST
from melpatch.page.server import make_app
from melpatch.page.session import WAYS, Session
from melpatch.search.index import Index
from melpatch.search.label_file import open_labels
from melpatch.training.config import RunConfig, build
from melpatch.training.run import Run

RATE = 16000
SECONDS = 100  # of a recording, whose windows of one second do not overlap
POOLING = "mean+std"
LABEL = "a"


def write_sound(path: Path, seconds: int, seed: int) -> Path:
    """Write noise with a sweep in each second."""
    rng = np.random.default_rng(seed)
    time_in_second = np.arange(seconds * RATE) % RATE / RATE
    sweep = np.sin(2 * np.pi * (1000 + 2000 * time_in_second) * time_in_second)
    soundfile.write(path, 0.2 * sweep + 0.02 * rng.standard_normal(len(sweep)), RATE)
    return path


def write_model(folder: Path, dim: int) -> Model:
    """Write a run with random weights whose vectors have a length, and load it."""
    config = RunConfig(
        front_end=LogMel.Config(scale=1.0),
        encoder=ViT.Config(embed_dim=dim // 2, depth=4, num_heads=3),
        objective=SSAST.Config(),
        loader=LoaderConfig(seconds=1.0, workers=0),
    )
    run = Run.create(folder, config)
    with run.checkpoints:
        run.publish(build(config).state_dict())
    return load(folder, precision="32-true")


class Requests:
    """Requests of one person for one label, timed and told by name."""

    def __init__(self, client: TestClient, facts: dict[str, int]) -> None:
        self._client = client
        self._facts = facts

    def post(self, path: str, **values: object) -> Callable[[], object]:
        """Return a request with values."""
        return lambda: self._client.post(f"/api/{path}", json={"who": "ann"} | values)

    def get(self, path: str) -> Callable[[], object]:
        """Return a request for something."""
        return lambda: self._client.get(f"/api/{path}")

    def send(self, content: bytes) -> Callable[[], object]:
        """Return a request that sends a sound file."""
        headers = {"content-type": "application/octet-stream"}
        return lambda: self._client.post("/api/query?name=a.wav", content=content, headers=headers)

    def tell(self, name: str, calls: list[Times]) -> None:
        """Print the times of a kind of request."""
        tell(name, calls, **self._facts)

    def time(self, name: str, act: Callable[[], object]) -> None:
        """Time a request that can be repeated."""
        self.tell(name, timed(act))


def teach(requests: Requests, rows: int, answers: int) -> None:
    """Time answers and what comes next after each; a fifth of them are yes."""
    taken: list[Times] = []
    after: list[Times] = []
    for number, row in enumerate(np.random.default_rng(1).permutation(rows)[:answers].tolist()):
        kind = "yes" if number % 5 == 0 else "no"
        taken += timed_once(requests.post("answer", row=row, label=LABEL, answer=kind))
        after += timed_once(requests.post("next", label=LABEL, by="likely"))
    requests.tell("answer and learn", taken)
    requests.tell("next, likely, after each answer", after)
    requests.tell("answer and learn, the last ten", taken[-10:])


def ask_all(requests: Requests, sound: bytes, long: bytes) -> None:
    """Time every kind of request that changes nothing, and those that do last."""
    for by in WAYS:
        requests.time(f"next, {by}", requests.post("next", label=LABEL, by=by))
    requests.time("like a clip", requests.post("search", row=5))
    requests.time("like a stretch", requests.post("search", row=5, start=5.2, end=6.4))
    requests.time("like a label", requests.post("search", label=LABEL))
    requests.time("like a file of 10 s", requests.send(sound))
    requests.time("like the first 20 s of a file of 100 s", requests.send(long))
    requests.time("clips of the map", requests.post("rows", rows=[*range(60)]))
    requests.time("figures", requests.post("figures", label=LABEL))
    requests.time("wrong", requests.post("wrong", label=LABEL))
    for path in (
        "state",
        "map",
        "training",
        "sound/5",
        "spectrogram/5",
        "spectrogram/50?around=20",
    ):
        requests.time(path, requests.get(path))
    kept = [requests.post("keep", name=f"k{n}", thresholds={}) for n in range(3)]
    requests.tell("keep", [call for act in kept for call in timed_once(act)])
    requests.time("undo", requests.post("undo"))


def time_page(root: Path, rows: int, dim: int, answers: int) -> None:
    """Write a collection, open it, and time its requests."""
    sounds = [write_sound(root / f"{number}.wav", SECONDS, number) for number in range(2)]
    index = write_index(root / "index", rows, dim, POOLING, sounds)
    short = write_sound(root / "short.wav", 10, 9).read_bytes()
    model = write_model(root / "run", dim)
    facts = {"rows": rows, "dim": dim, "answers": answers}
    with open_labels(index / "labels.csv") as labels:
        apps: list[TestClient] = []

        def start() -> None:
            app = make_app(Session(Index(index), labels, model))
            apps.append(TestClient(app, base_url="http://localhost"))

        tell("start", timed_once(start), **facts)
        # As the command does before it serves.
        gc.collect()
        gc.freeze()
        requests = Requests(apps[0], facts)
        teach(requests, rows, answers)
        ask_all(requests, short, sounds[0].read_bytes())


def main() -> None:
    """Time the page on a collection of made-up windows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=192)
    parser.add_argument("--answers", type=int, default=60)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        time_page(Path(folder), given.rows, given.dim, given.answers)


if __name__ == "__main__":
    main()
