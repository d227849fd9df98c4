"""The export of the tiny experiment."""

from __future__ import annotations

import pytest
from tiny_shards import export_words

import bhx_model
from bhx_model.data import shards, volumes
from bhx_model.release import export


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory):
    """Only to be read."""
    out = tmp_path_factory.mktemp("exported") / "export"
    assert export.main(export_words(trained, out)) == 0
    return out


@pytest.fixture(scope="session")
def model(exported):
    """As somebody else loads it."""
    return bhx_model.from_pretrained(exported)


@pytest.fixture(scope="session")
def subject(trained):
    """Series, TR and T1 of subject 2."""
    index = shards.open_index(trained["town"])
    pairs, _ = shards.pair(index.samples["bold"], index.samples["t1w"])
    run, volume = next(pair for pair in pairs if "sub-002" in pair[0].key)
    return shards.read_bold(run, 20), run.tr_s, volumes.to_float32(shards.read_t1w([volume], (32, 48, 32))[0])
