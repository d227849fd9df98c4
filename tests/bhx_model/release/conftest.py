"""The export of the tiny experiment."""

from __future__ import annotations

import pytest
from tiny_shards import export_words

import bhx_model
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
