"""Reference datasets, unpacked once."""

from __future__ import annotations

import pytest
from small_bids import unpack


@pytest.fixture(scope="session")
def bids_examples(shared, tmp_path_factory):
    """Ten reference datasets with empty images."""
    return unpack(shared("data/bids/bids_examples.tar.gz"), tmp_path_factory.mktemp("bids"))


@pytest.fixture(scope="session")
def fmriprep_example(shared, tmp_path_factory):
    """A full tree of fMRIPrep 20 with empty images."""
    folder = unpack(shared("data/fmriprep/ds000001-fmriprep.tar.gz"), tmp_path_factory.mktemp("fmriprep"))
    return folder / "ds000001-fmriprep"
