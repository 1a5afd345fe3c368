"""Settings for all tests: one thread, and examples of hypothesis that are the same on every CI run."""

import os

import torch
from hypothesis import settings

settings.register_profile("local", deadline=None, max_examples=30)
settings.register_profile("ci", deadline=None, max_examples=30, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")
torch.set_num_threads(1)
