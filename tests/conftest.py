"""What all tests share: where real inputs are, no network, and the same examples every time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("NO_ET", "1")  # nipype and fMRIPrep shall not ask the network for newer versions

# the same examples every time, and no verdict on the speed of a machine that others use too
settings.register_profile(
    "bhx", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("bhx")

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared():
    """Path of a real input that is kept beside the project; the test is skipped where it is absent."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"real input {name} is not beside this checkout")
        return path

    return find
