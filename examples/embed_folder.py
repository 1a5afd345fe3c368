"""Embed a folder of recordings, and print for each of them the one that sounds most like it.

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
        vectors[path] = melpatch.embed(model, path)
    except AudioError as error:
        print(error, file=sys.stderr)

table = np.stack(list(vectors.values()))
# What all recordings share says nothing about their similarity.
table -= table.mean(axis=0)
table /= np.linalg.norm(table, axis=1, keepdims=True)
similarity = table @ table.T
np.fill_diagonal(similarity, -1)
paths = list(vectors)
for path, row in zip(paths, similarity, strict=True):
    print(f"{path}\t{paths[row.argmax()]}\t{row.max():.3f}")
