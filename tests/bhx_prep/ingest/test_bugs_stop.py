"""A bug of ours in the reading of one scan stops the index with its traceback: no row is made of it, no cache."""

from __future__ import annotations

import json

import numpy as np
import pytest
from small_bids import write_subject

from bhx_prep import cli
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.ingest import index, metadata, repetition_time


def broadcast(*_args, **_options):
    return np.zeros(3) + np.zeros(4)


def absent(*_args, **_options):
    return {}["TaskName"]


def asserted(*_args, **_options):
    raise AssertionError("planted")


@pytest.mark.parametrize(
    "function",
    [
        "read_header",
        "n_frames",
        "header_repetition_time",
        "voxel_sizes",
        "repetition_time.choose",
        "Sidecars.fields_of",
    ],
)
@pytest.mark.parametrize(
    ("bug", "error"),
    [(broadcast, "broadcast together"), (absent, "TaskName"), (asserted, "planted")],
)
def test_a_bug_is_no_reason(tmp_path, monkeypatch, function, bug, error):
    write_subject(tmp_path / "data")
    (tmp_path / "config.yaml").write_text(
        json.dumps({"cohorts": {"study": {"input": "bids", "root": "data"}}})
    )
    monkeypatch.chdir(tmp_path)
    owners = {"Sidecars": metadata.Sidecars, "repetition_time": repetition_time}
    owner = owners.get(function.partition(".")[0], metadata)
    monkeypatch.setattr(owner, function.rpartition(".")[2], bug)
    with pytest.raises((ValueError, KeyError, AssertionError), match=error) as raised:
        cli.main(["index"])
    assert type(raised.value) in (ValueError, KeyError, AssertionError)
    cohort = CohortSection(input="bids", root=tmp_path / "data")
    with pytest.raises(type(raised.value)):
        index.load(tmp_path / "cache", "study", cohort)
    for cache in (index.CACHE, tmp_path / "cache"):
        assert not cache.exists() or not list(cache.iterdir())
