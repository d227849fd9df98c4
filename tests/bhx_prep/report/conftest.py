"""The fake results, written once."""

from __future__ import annotations

from pathlib import Path

import fake_results
import pytest


@pytest.fixture(scope="session")
def results(tmp_path_factory) -> Path:
    """A results folder with three cohorts, an experiment and tables of both kinds."""
    root = tmp_path_factory.mktemp("study") / "results"
    fake_results.write(root)
    return root
