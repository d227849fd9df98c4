"""One cluster and one finished study for all scenarios; `tests/slurm/run` starts them, `make test` skips them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import cluster
import mini_study

#: Set by `tests/slurm/run`: scenarios take minutes.
ASKED = "BHX_SLURM_SCENARIOS"


def pytest_collection_modifyitems(config, items):
    asked = os.environ.get(ASKED)
    reason = (
        "scenarios on a cluster take minutes: tests/slurm/run starts them" if not asked else cluster.why_not()
    )
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
        elif asked != "all" and item.get_closest_marker("long_scenario"):
            item.add_marker(pytest.mark.skip(reason="a long scenario: tests/slurm/run --all"))


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """A running cluster of two nodes with two GPUs each."""
    with cluster.running(
        tmp_path_factory.mktemp("cluster"), nodes=2, cpus=24, memory_mb=96000, gpus=2
    ) as started:
        yield started


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Folder with the two cohorts."""
    folder = tmp_path_factory.mktemp("data")
    mini_study.make_data(folder)
    return folder


@pytest.fixture(scope="session")
def reference(tmp_path_factory, data):
    """The mini study run here, without Slurm: what every other run is compared with."""
    study = mini_study.MiniStudy(tmp_path_factory.mktemp("reference") / "study", data)
    assert study.run(profile=None) == 0, study.log()[-5000:]
    return study


@pytest.fixture
def finished(tmp_path, data, reference):
    """A copy of the finished study, to take something away from."""
    return mini_study.MiniStudy(tmp_path / "study", data, like=reference)


@pytest.fixture(autouse=True)
def nothing_stays():
    """A test that fails leaves no Snakemake at work."""
    yield
    mini_study.end_all()
