"""What is said before the first job."""

from __future__ import annotations

from pathlib import Path

import pytest

from bhx_prep import startup


@pytest.mark.parametrize(
    ("log", "record", "warns"), [(False, False, False), (True, False, True), (True, True, False)]
)
def test_results_without_records_of_how_they_were_made(tmp_path: Path, log: bool, record: bool, warns: bool):
    results, records = tmp_path / "results", tmp_path / ".snakemake/metadata"
    (results / "logs/index_shards").mkdir(parents=True)
    records.mkdir(parents=True)
    if log:
        (results / "logs/index_shards/town.log").touch()
    if record:
        (records / "cmVzdWx0cw==").touch()
    said = startup.lost_records(results, tmp_path)
    assert bool(said) is warns
    assert not warns or "changes of the configuration since then go unseen" in said
