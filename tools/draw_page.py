"""Draw docs/images/page_*.png: the page of ``melpatch page`` in a browser, on made-up sound.

python tools/draw_page.py --out docs/images

Needs Chromium and Playwright (the ``dev`` extra). Nothing in the pictures is a recording: calls are
sweeps and trills that are made up here, in noise.
"""

import argparse
import io
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
import uvicorn
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from melpatch.cli import main as melpatch
from melpatch.page.server import make_app
from melpatch.page.session import Session
from melpatch.search.build import model_of
from melpatch.search.index import Index
from melpatch.search.label_file import open_labels

RATE = 16000
CALLS = ("sweep", "trill", "drone", "nothing")
WIDE, NARROW = (1280, 900), (400, 860)


def call(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Return a made-up call of up to a second."""
    time = np.arange(round(rng.uniform(0.5, 0.9) * RATE)) / RATE
    shape = np.hanning(len(time))
    if kind == "sweep":
        low = rng.uniform(1200, 1800)
        return shape * np.sin(2 * np.pi * (low + 2200 * time) * time)
    if kind == "trill":
        pulses = np.sin(2 * np.pi * rng.uniform(10, 14) * time) > 0
        return shape * pulses * np.sin(2 * np.pi * rng.uniform(4000, 4800) * time)
    if kind == "drone":
        pitch = rng.uniform(250, 400)
        return shape * sum(np.sin(2 * np.pi * n * pitch * time) / n for n in range(1, 6))
    return 0 * time


def write_sounds(folder: Path, recordings: int) -> set[tuple[str, int]]:
    """Write recordings of 12 s: noise, and calls of mostly one kind; return where sweeps are."""
    folder.mkdir()
    sweeps = set()
    for number in range(recordings):
        rng = np.random.default_rng(number)
        noise = np.cumsum(rng.standard_normal(12 * RATE))
        hiss = rng.standard_normal(len(noise))
        wave = 0.02 * (noise - np.convolve(noise, np.ones(64) / 64, "same")) + 0.01 * hiss
        own = CALLS[number % len(CALLS)]
        for second in range(0, 12, 3):
            kind = own if rng.uniform() < 0.8 else str(rng.choice(CALLS))
            made = 0.3 * rng.uniform(0.4, 1) * call(kind, rng)
            begin = round((second + rng.uniform(0.3, 1.8)) * RATE)
            wave[begin : begin + len(made)] += made
            name = f"site-{number:02d}.wav"
            if kind == "sweep":
                sweeps.add((name, second))
        soundfile.write(folder / name, np.clip(wave, -1, 1), RATE)
    return sweeps


@contextmanager
def served(index: Path) -> Iterator[str]:
    """Serve the page of an index; yield its address."""
    found = Index(index)
    with open_labels(index / "labels.csv") as labels:
        app = make_app(Session(found, labels, model_of(found)))
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            thread.join(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join()


def drawn(page: Page) -> None:
    """Wait until all spectrograms are drawn."""
    page.wait_for_selector(".card .axis span")
    while page.evaluate("state.cards.some((card) => !card.picture)"):
        page.wait_for_timeout(50)
    page.wait_for_timeout(300)


def teach(page: Page, by: str, answers: int, sweeps: set[tuple[str, int]]) -> None:
    """Answer clips as a listener would who is right."""
    page.select_option("#by", by)
    page.press("#label", "Enter")
    drawn(page)
    for _ in range(answers):
        row, path, start = page.evaluate(
            "((card) => [card.row, card.path, card.start])(state.cards[state.focus])"
        )
        page.keyboard.press("y" if (Path(path).name, round(start)) in sweeps else "n")
        page.wait_for_selector(f'.card[data-row="{row}"][data-answer]:not([data-answer=""])')


def shoot(page: Page, path: Path) -> None:
    """Write what is seen, in 128 colours, which takes a third of the bytes."""
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def draw(address: str, out: Path, sweeps: set[tuple[str, int]]) -> None:
    """Write the pictures."""
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": WIDE[0], "height": WIDE[1]})
        page.goto(address)
        page.fill("#who", "ann")
        page.wait_for_selector("#about:not(:empty)")
        page.fill("#label", "sweep")
        for by in ("random", "test", "random", "test", "random"):
            teach(page, by, 11, sweeps)
        teach(page, "likely", 4, sweeps)
        drawn(page)
        page.evaluate("window.scrollTo(0, 0)")
        shoot(page, out / "page.png")
        page.emulate_media(color_scheme="dark")
        page.set_viewport_size({"width": NARROW[0], "height": NARROW[1]})
        page.wait_for_timeout(300)
        shoot(page, out / "page_narrow.png")
        browser.close()


def main() -> None:
    """Make the collection, serve it, and draw the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recordings", type=int, default=48)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        sweeps = write_sounds(folder / "recordings", given.recordings)
        words = ["pretrain", "maskspec", "--data", folder / "recordings", "--out", folder / "run"]
        words += ["--size", "nano", "--seconds", 3, "--steps", 40, "--workers", 0]
        words += ["--batch-size", 8, "--objective.decoder.dim", 32, "--objective.decoder.depth", 1]
        assert melpatch([str(word) for word in words]) == 0
        index = folder / "collection"
        words = ["index", folder / "run", folder / "recordings", "--out", index]
        assert melpatch([str(word) for word in [*words, "--window", 3, "--hop", 3]]) == 0
        with served(index) as address:
            draw(address, given.out, sweeps)


if __name__ == "__main__":
    main()
