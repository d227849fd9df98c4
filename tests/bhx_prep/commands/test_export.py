"""`bhx export timeseries`: series as BIDS derivatives."""

from __future__ import annotations

import json
from fnmatch import fnmatch

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from bids_validation import errors

from bhx_model.contract import canonical_json
from bhx_prep.cli import main
from bhx_prep.commands import export
from bhx_prep.features import table_columns
from bhx_prep.ingest import index

NAMES = ["17Networks_LH_Vis_1", "17Networks_LH_Vis_2", "17Networks_RH_Vis_1"]


def row(subject, key, session=None, synthetic=False):
    series = np.arange(12, dtype=np.float32).reshape(3, 4) + 0.125
    series[1] = np.nan
    return {
        "key": key, "subject": subject, "session": session, "task": "rest", "run": None, "anat": None, "tr_s": 0.8,
        "n_frames": 4, "segments": None, "synthetic": synthetic, "series": series.ravel(),
        "coverage": np.array([1, 0.25, 0.5], "f4"),
    }  # fmt: skip


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A folder with a configuration and the features of two batches."""
    (tmp_path / "config.yaml").write_text(
        yaml.safe_dump({"cohorts": {"ward": {"input": "fmriprep", "root": "x"}}})
    )
    metadata = {"atlas": "Schaefer17n3p", "names": NAMES, "strategy": "paper"}
    schema = table_columns.SERIES_SCHEMA.with_metadata({b"bhx": canonical_json(metadata)})
    rows = [
        [
            row("01", "ward_sub-01_ses-a_task-rest_acq-AP_run-01", "a"),
            row("01", "ward_sub-01_ses-b_task-rest", "b"),
        ],
        [row("02", "ward_sub-02_task-rest", synthetic=True)],
    ]
    for batch, listed in enumerate(rows):
        folder = tmp_path / f"results/ward/features/batch-{batch:05d}"
        folder.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(listed, schema=schema), folder / "timeseries.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_run_becomes_tables_with_sidecars(study, capsys):
    assert main(["export", "timeseries", "ward", "--out", "out"]) == 0
    shown = capsys.readouterr()
    assert "3 runs of 2 subjects" in shown.err
    assert shown.out == ""
    stem = study / "out/sub-01/ses-a/func/sub-01_ses-a_task-rest_acq-AP_run-01_space-MNI152NLin2009cAsym"
    stem = stem.with_name(f"{stem.name}_atlas-Schaefer17n3p")
    table = pd.read_csv(f"{stem}_stat-mean_timeseries.tsv", sep="\t")
    assert list(table) == NAMES
    np.testing.assert_array_equal(table[NAMES[0]], np.arange(4) + 0.125)
    assert table[NAMES[1]].isna().all()
    about = json.loads((stem.parent / f"{stem.name}_stat-mean_timeseries.json").read_text())
    assert (about["RepetitionTime"], about["Denoising"], about["Synthetic"]) == (0.8, "paper", False)
    coverage = pd.read_csv(f"{stem}_stat-coverage_bold.tsv", sep="\t")
    assert coverage["Node"].tolist() == NAMES
    assert coverage["coverage"].tolist() == [1, 0.25, 0.5]
    described = json.loads((study / "out/dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative"
    ignored = (study / "out/.bidsignore").read_text().split()
    tables = [p.name for p in (study / "out/sub-01").rglob("*.*")]
    assert tables
    assert all(any(fnmatch(name, pattern) for pattern in ignored) for name in tables)
    assert described["Synthetic"] is True
    before = {p: p.read_bytes() for p in (study / "out").rglob("*") if p.is_file()}
    assert main(["export", "timeseries", "ward", "--out", "out"]) == 0
    assert {p: p.read_bytes() for p in (study / "out").rglob("*") if p.is_file()} == before


def test_an_age_group_of_a_space_is_an_entity_before_the_atlas(study):
    export.export_timeseries(study / "results/ward/features", study / "out", "MNIInfant:cohort-3")
    (table,) = (study / "out/sub-02/func").glob("*_timeseries.tsv")
    assert (
        table.name == "sub-02_task-rest_space-MNIInfant_cohort-3_atlas-Schaefer17n3p_stat-mean_timeseries.tsv"
    )


def test_what_series_are_made_of_is_said(study):
    derivative = (
        study
        / "x/sub-01/ses-b/func/sub-01_ses-b_task-rest_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz"
    )
    scan = dict.fromkeys(index.SCHEMA.names) | {
        "cohort": "ward", "input": "fmriprep", "subject": "01", "modality": "bold", "status": "ok",
        "key": "ward_sub-01_ses-b_task-rest", "path": str(derivative), "synthetic": False,
    }  # fmt: skip
    pq.write_table(pa.Table.from_pylist([scan], schema=index.SCHEMA), study / "results/ward/index.parquet")
    quality = [{"key": scan["key"], "strategy": "as given"}]
    pq.write_table(pa.Table.from_pylist(quality), study / "results/ward/features/batch-00000/qc.parquet")
    assert main(["export", "timeseries", "ward", "--out", "out"]) == 0
    described = json.loads((study / "out/dataset_description.json").read_text())
    assert (described["SourceDatasets"], described["DatasetLinks"]) == ([{"URL": "../x"}], {"ward": "../x"})
    about = {
        path.name: json.loads(path.read_text()) for path in (study / "out").glob("sub-*/**/*_timeseries.json")
    }
    told = {name.partition("_task")[0]: (one["Denoising"], one.get("Sources")) for name, one in about.items()}
    assert told == {
        "sub-01_ses-a": ("paper", None),
        "sub-01_ses-b": ("as given", [f"bids:ward:{derivative.relative_to(study / 'x')}"]),
        "sub-02": ("paper", None),
    }
    before = described["ConfigurationHash"]
    for changes, same in (({"harmonics": 100}, True), ({"strategy": "acompcor"}, False)):
        settings = {"cohorts": {"ward": {"input": "fmriprep", "root": "x"}}, "features": changes}
        (study / "config.yaml").write_text(yaml.safe_dump(settings))
        assert main(["export", "timeseries", "ward", "--out", "out"]) == 0
        described = json.loads((study / "out/dataset_description.json").read_text())
        assert (described["ConfigurationHash"] == before) is same
    assert errors(study / "out") == []


def test_a_folder_of_somebody_elses_is_refused(study, capsys):
    mine = study / "raw/dataset_description.json"
    mine.parent.mkdir()
    for content in ('{"Name": "my data"}', '{"GeneratedBy": [{"Name": "fMRIPrep"}]}', "no JSON"):
        mine.write_text(content)
        assert main(["export", "timeseries", "ward", "--out", "raw"]) == 1
        assert "raw has files that `bhx` did not make: give an empty folder" in capsys.readouterr().err
        assert [(p, p.read_text()) for p in mine.parent.iterdir()] == [(mine, content)]


@pytest.mark.parametrize(
    ("function", "call"),
    [("_write_table", 1), ("_write_table", 4), ("Path.replace", 1), ("Path.replace", 2), ("Path.replace", 5)],
)
def test_a_killed_export_gives_the_same_files_when_run_again(study, check_kill, function, call):
    words = ["export", "timeseries", "ward", "--out"]
    check_kill("bhx_prep.commands.export", function, call, lambda out: [*words, str(out)])


def test_what_is_missing_is_a_sentence(study, capsys):
    assert main(["export", "timeseries", "word", "--out", "out"]) == 1
    assert "there are: ward" in capsys.readouterr().err
    (study / "results/ward/features/batch-00001/timeseries.parquet").write_bytes(b"torn")
    assert main(["export", "timeseries", "ward", "--out", "out"]) == 1
    assert "extract the features of this batch again" in capsys.readouterr().err
    (study / "results").rename(study / "gone")
    assert main(["export", "timeseries", "ward", "--out", "out"]) == 1
    assert "no features in" in capsys.readouterr().err
