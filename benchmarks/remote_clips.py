"""Count what reading a part of a set of remote shards fetches, as clips and as whole shards.

    OMP_NUM_THREADS=1 python benchmarks/remote_clips.py [--shares 0.01 0.05 0.2 1]

Noise is packed into shards behind a web server on this machine, which waits before each answer and
sends at a fixed rate, like a distant store. Prints a line of JSON per share of the clips, drawn at
random, and way of reading: requests of shards, MiB that were sent, and seconds until all clips are
decoded, by some worker processes and with an empty cache.
"""

import argparse
import http.server
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile

from melpatch.data import ranges, remote
from melpatch.data.archive import Packing
from melpatch.data.cache import CACHE_FOLDER
from melpatch.data.loader import evaluation_batches
from melpatch.data.manifest import load_corpus
from melpatch.data.packing import pack

RATE = 16000


def write_shards(folder: Path, clips: int, seconds: float, shards: int) -> Path:
    """Pack noises, uncompressed, into a number of shards."""
    random = np.random.default_rng(0)
    sounds = folder / "sounds"
    sounds.mkdir()
    for number in range(clips):
        wave = random.uniform(-0.5, 0.5, round(seconds * RATE))
        soundfile.write(sounds / f"{number:06}.wav", wave, RATE, subtype="PCM_16")
    corpus = load_corpus([sounds])
    names = [clip.path.name for clip in corpus.clips]
    settings = Packing(
        sample_rate=RATE, codec="pcm", shard_mib=2 * RATE * seconds * clips / shards / 2**20
    )
    pack(corpus, names, folder / "shards", settings, workers=0, command="remote_clips.py")
    return folder / "shards"


@contextmanager
def distant_server(folder: Path, latency: float, rate: float) -> Iterator[tuple[str, list[int]]]:
    """Serve a folder from afar; yield the URL, and the bytes of each answer about a shard.

    Args:
        folder: what is served.
        latency: seconds before each answer.
        rate: bytes per second of each answer.
    """
    sent: list[int] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Print nothing."""

        def do_GET(self) -> None:
            path = folder / self.path.strip("/")
            size = path.stat().st_size
            asked = self.headers.get("Range")
            first, last = 0, size - 1
            if asked:
                first, last = map(int, asked.removeprefix("bytes=").split("-"))
            length = last + 1 - first
            time.sleep(latency + length / rate)
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            with path.open("rb") as file:
                file.seek(first)
                self.wfile.write(file.read(length))
            if path.suffix == ".tar":
                sent.append(length)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", sent
        server.shutdown()


def read(url: str, share: float, workers: int) -> float:
    """Decode a random share of the clips of a URL; return the seconds that takes."""
    clips = load_corpus([url]).clips
    count = max(1, round(share * len(clips)))
    numbers = np.random.default_rng(1).permutation(len(clips))[:count]
    chosen = clips.take(np.sort(numbers))
    start = time.monotonic()
    for loaded in evaluation_batches(chosen, RATE, batch_size=8, workers=workers):
        assert not loaded.rejected
    return time.monotonic() - start


def main(settings: argparse.Namespace) -> None:
    """Print a line per share and way."""
    # Above this share of its cost a shard is fetched whole: 0, as if there were no ranges.
    ways = {"whole shards": 0.0, "clips where few": ranges._WHOLE_SHARE}
    with TemporaryDirectory() as made:
        folder = Path(made)
        shards = write_shards(folder, settings.clips, settings.seconds, settings.shards)
        total = sum(file.stat().st_size for file in shards.glob("*.tar"))
        with distant_server(shards, settings.latency_ms / 1e3, settings.mb_per_second * 1e6) as (
            url,
            sent,
        ):
            for number, share in enumerate(settings.shares):
                for way, whole_share in ways.items():
                    os.environ[CACHE_FOLDER] = str(folder / f"cache {number} {way}")
                    remote._mirror.cache_clear()
                    ranges._WHOLE_SHARE = whole_share
                    sent.clear()
                    seconds = read(url, share, settings.workers)
                    record = {
                        "share": share,
                        "way": way,
                        "requests": len(sent),
                        "mib": round(sum(sent) / 2**20, 1),
                        "of_all_bytes": round(sum(sent) / total, 4),
                        "seconds": round(seconds, 2),
                    }
                    print(json.dumps(record), flush=True)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the settings."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--shares", type=float, nargs="+", default=[0.01, 0.05, 0.2, 1.0])
    made.add_argument("--clips", type=int, default=2000)
    made.add_argument("--seconds", type=float, default=5.0, help="of a clip")
    made.add_argument("--shards", type=int, default=5)
    made.add_argument("--workers", type=int, default=4)
    made.add_argument("--latency-ms", type=float, default=30.0)
    made.add_argument("--mb-per-second", type=float, default=100.0)
    return made


if __name__ == "__main__":
    main(parser().parse_args())
