"""Draw the pictures of the pages on objectives: train each briefly on synthetic scenes and show what it makes of one.

``python tools/draw_objectives.py WORK`` writes runs and audio to WORK and pictures to ``docs/images``: some
minutes of one core.
"""

import shutil
import sys
from pathlib import Path

import melpatch
from melpatch.audio.files import read
from melpatch.cli import main as command
from melpatch.datasets.scenes import generate
from melpatch.plots.base import save, sheet

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SECONDS = 2.0
RECIPES = {"ssast": "ssast", "mae_ast": "mae_ast", "maskspec": "maskspec", "asit": "asit_short"}


def main(work: Path) -> None:
    """Train, show, and copy one picture per objective."""
    corpus = generate(work / "scenes", clips=20, seconds=SECONDS, seed=0, unlabelled=600)
    scene = sorted((work / "scenes").rglob("*.flac"))[0]
    for name, recipe in RECIPES.items():
        run = melpatch.pretrain(
            data=str(corpus),
            objective=recipe,
            out=work / name,
            size="nano",
            steps=120,
            seconds=SECONDS,
            workers=0,
            resume=True,
        )
        pictures = work / f"{name}-pictures"
        command(["show", str(run.folder), "--sound", str(scene), "--pictures", str(pictures)])
        shutil.copy(pictures / "reconstruction.png", IMAGES / f"{name}.png")
    draw_crops(scene, IMAGES / "cola.png")


def draw_crops(scene: Path, path: Path) -> None:
    """Draw the spectrogram of a scene with two crops, as COLA compares them."""
    front_end = melpatch.LogMel()
    wave, _ = read(scene, sample_rate=front_end.sample_rate)
    spectrogram = front_end(wave)
    figure = sheet(7, 2.4)
    axis = figure.subplots()
    axis.imshow(spectrogram.numpy(), origin="lower", aspect="auto", extent=(0, SECONDS, 0, 128))
    for start, color, label in ((0.2, "white", "anchor"), (1.05, "orange", "positive")):
        axis.add_patch(_frame(start, color))
        axis.text(start + 0.03, 115, label, color=color)
    axis.set(xlabel="seconds", ylabel="mel band")
    save(figure, path)


def _frame(start: float, color: str) -> object:
    from matplotlib.patches import Rectangle

    return Rectangle((start, 1), 0.7, 126, fill=False, edgecolor=color, linewidth=2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
