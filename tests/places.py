"""Where tests find the shared audio, golden numbers and specifications; they skip with a reason where these are
absent."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


def shared(path: str) -> Path:
    """Return a path below the shared folder, or skip the test that asks for it."""
    found = SHARED / path
    if not found.exists():
        pytest.skip(
            f"needs ../shared/{path}, which lies beside the project only on development machines and in CI"
        )
    return found
