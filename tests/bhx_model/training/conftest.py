"""Uninterrupted trainings, which others are compared with."""

from __future__ import annotations

import pytest
from training_runs import train_here


@pytest.fixture(scope="session")
def straight(house, tmp_path_factory):
    """Six steps without a stop, of both encoders."""
    folder = tmp_path_factory.mktemp("straight")
    for stage in ("structure", "function"):
        assert train_here(house, folder / stage, stage) == 0
    return folder
