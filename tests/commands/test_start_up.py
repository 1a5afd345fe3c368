"""What a prediction imports, counted in modules: most of the time before the first answer."""

import os
import subprocess
import sys

import numpy as np
import soundfile
from journeys.three_sounds import settings, write_run

MODULES = 380
"""Beyond those of torch, of all libraries and melpatch together."""
CODE = """
import sys, torch
before = set(sys.modules)
from melpatch.cli import main
code = main(sys.argv[1:])
print("imported:", *sorted(sys.modules.keys() - before))
sys.exit(code)
"""


def imported_by(*words):
    """Return the modules that a command imports beyond those that torch does."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"COLUMNS": "100"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rpartition("imported:")[2].split()


def test_a_prediction_imports_no_library_that_it_does_not_use(tmp_path):
    run = write_run(tmp_path / "run", settings(("a", "b")))
    soundfile.write(tmp_path / "one.wav", 0.1 * np.ones(8000), 8000)
    names = imported_by("predict", run, tmp_path / "one.wav", "--out", tmp_path / "answers.csv")
    unused = {"scipy", "sklearn", "pandas", "pyarrow", "matplotlib", "lightning_fabric"}
    assert unused.isdisjoint(name.partition(".")[0] for name in names)
    assert len(names) <= MODULES, f"{len(names)} modules"
