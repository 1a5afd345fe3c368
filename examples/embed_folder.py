"""Embed a folder of recordings, and tell for each of them which other one sounds most like it.

python examples/embed_folder.py runs/a recordings/
"""

import sys
from pathlib import Path

import numpy as np

import melpatch
from melpatch.errors import AudioError

model = melpatch.load(sys.argv[1])
vectors = {}
for path in sorted(Path(sys.argv[2]).rglob("*.*")):
    try:
        vectors[path] = model.embed(path)
    except AudioError as error:
        print(error, file=sys.stderr)

table = np.stack(list(vectors.values()))
table -= table.mean(axis=0)  # what all recordings share says nothing
table /= np.linalg.norm(table, axis=1, keepdims=True)
likeness = table @ table.T
np.fill_diagonal(likeness, -1)
for path, row in zip(vectors, likeness, strict=True):
    print(f"{path}\t{list(vectors)[row.argmax()]}\t{row.max():.3f}")
