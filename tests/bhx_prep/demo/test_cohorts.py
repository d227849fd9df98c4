"""The demo cohorts: labelled, reproducible, complete or absent, with planted effects of the stated size."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from bids_validation import errors

from bhx_model.errors import ConfigError
from bhx_prep import process_pool
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.demo import derivatives, folder, lemon, rawbids, series, sources, timeseries
from bhx_prep.demo.cohorts import make_cohorts
from bhx_prep.demo.subjects import Subject
from bhx_prep.ingest import index
from bhx_prep.io import motion

COARSE_MM = 8.0


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def usable(name: str, root: Path, input: str, **more) -> pd.DataFrame:
    table = index.build(name, CohortSection(input=input, root=root, synthetic=True, **more)).to_pandas()
    return table[table.status == "ok"]


@pytest.fixture(scope="module")
def patients(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("synth") / "patients"
    timeseries.fill_patients(root, 0, n=8, step_mm=COARSE_MM)
    return root


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """One short scan of a subject with a session."""
    root = tmp_path_factory.mktemp("synth") / "rawbids"
    subject = Subject("02", 2.5, 12, 0.2, 300, session="a")
    rawbids.fill(
        root, 0, (subject,), rawbids.RawGrids(t1_step_mm=6.0, bold_step_mm=8.0, bold_shape=(28, 28, 20))
    )
    return root


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Path:
    """The real scan."""
    root = tmp_path_factory.mktemp("synth") / "lemon"
    lemon.fill(root, 0)
    return root


@pytest.fixture(scope="module")
def preprocessed(tmp_path_factory) -> Path:
    """One subject in fMRIPrep's files."""
    root = tmp_path_factory.mktemp("synth") / "derivatives"
    subject, mm = Subject("w004", 2.0, 60, 0.8, 420), COARSE_MM
    derivatives.fill(root, 0, (subject,), derivatives.DerivativeGrids(t1_step_mm=mm, bold_step_mm=mm))
    return root


@pytest.mark.parametrize("name", ["raw", "patients", "scan", "preprocessed"])
def test_the_validator_of_bids_accepts_a_cohort(name, request):
    assert errors(request.getfixturevalue(name)) == []


def test_equal_seeds_give_equal_bytes_in_any_process_with_any_number_of_subjects(tmp_path, monkeypatch):
    monkeypatch.setattr(process_pool, "MOST", 1)  # each process samples the head's template first
    timeseries.fill_pretraining(tmp_path / "a", 3, n=2, step_mm=COARSE_MM)
    with process_pool.process_pool() as pool:
        timeseries.fill_pretraining(tmp_path / "b", 3, n=2, step_mm=COARSE_MM, each=pool.map)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    timeseries.fill_pretraining(tmp_path / "more", 3, n=3, step_mm=COARSE_MM)
    timeseries.fill_pretraining(tmp_path / "other", 4, n=2, step_mm=COARSE_MM)
    files = {name: content for name, content in contents(tmp_path / "a").items() if name.startswith("sub-")}
    more, other = contents(tmp_path / "more"), contents(tmp_path / "other")
    assert all(more[name] == content for name, content in files.items())
    assert all(other[name] != content for name, content in files.items() if not name.endswith(".json"))


def test_synthetic_data_are_labelled_everywhere(patients, raw):
    for root in (patients, raw):
        metadata = json.loads((root / "dataset_description.json").read_text())
        assert metadata["Synthetic"] is True
        assert "synthetic" in metadata["Name"]
        assert "synthetic" in (root / "README").read_text()
        described = json.loads((root / "participants.json").read_text())
        drawn = set(pd.read_csv(root / "participants.tsv", sep="\t").columns) - {"participant_id", "site"}
        assert all("at random" in described[name]["Description"] for name in drawn)
        for sidecar in root.rglob("sub-*/**/*.json"):
            assert json.loads(sidecar.read_text())["Synthetic"] is True, sidecar
    assert (
        index.build("patients", CohortSection(input="timeseries", root=patients, synthetic=True))[
            "synthetic"
        ].to_pylist()
        == [True] * 16
    )


def test_a_real_scan_is_not_labelled_synthetic(scan):
    root, scan = scan, usable("lemon", scan, "fmriprep", space="fsaverage5").iloc[0]
    assert (scan.tr_s, scan.n_frames, scan.kind) == (1.4, 652, "gifti")
    assert json.loads((root / "dataset_description.json").read_text())["Synthetic"] is False
    written = nib.load(scan.path)
    left = sources.lemon_series()[0]
    for t in (0, 300, 651):
        np.testing.assert_array_equal(written.darrays[t].data, left[:, t])
    fd = pd.read_csv(scan.confounds, sep="\t")["framewise_displacement"]
    assert len(fd) == 652
    assert np.isnan(fd[0])
    assert (fd[1:] >= 0).all()


def test_raw_bids_is_indexed(raw):
    found = usable("rawbids", raw, "bids").set_index("modality")
    assert found.loc["bold", "key"] == "rawbids_sub-02_ses-a_task-rest"
    assert found.loc["bold", "tr_s"] == 2.5
    assert found.loc["bold", "n_frames"] == 12
    assert found.loc["bold", "anat"] == found.loc["t1w", "key"]
    truth = json.loads(next(raw.rglob("*_truth.json")).read_text())
    assert truth["mean_fd_mm"] == pytest.approx(0.2)
    moved = pd.read_csv(next(raw.rglob("*_motion.tsv")), sep="\t")
    fd = motion.framewise_displacement(moved[list(motion.NAMES)].to_numpy())
    assert np.nanmean(fd) == pytest.approx(0.2, abs=1e-6)


def test_derivatives_have_what_fmriprep_writes(preprocessed):
    bold = usable("derivatives", preprocessed, "fmriprep").set_index("modality").loc["bold"]
    table = pd.read_csv(bold.confounds, sep="\t")
    assert len(table) == bold.n_frames == 60
    expected = {
        "global_signal",
        "csf",
        "white_matter",
        "framewise_displacement",
        "std_dvars",
        "a_comp_cor_00",
    }
    assert expected | {f"{name}_derivative1" for name in motion.NAMES} <= set(table)
    assert table.framewise_displacement.mean() == pytest.approx(0.8, abs=1e-4)


def test_groups_and_scores_are_balanced():
    drawn = timeseries.patient_subjects(0, 120)
    patient = np.array([p.patient for p in drawn])
    site = np.array([p.scanner.site for p in drawn])
    score = np.array([p.score for p in drawn])
    for name in np.unique(site):
        assert patient[site == name].mean() == 0.5
    for group in (0, 1):
        assert score[patient == group].mean() == pytest.approx(0, abs=1e-12)
        assert score[patient == group].std() == pytest.approx(1)


def test_planted_couplings_are_in_the_series():
    metadata = timeseries.planted(timeseries.patient_subjects(0, 8))
    names = sources.atlas().names
    scanner = timeseries.Scanner("long", 2.0, 4000)
    drawn = {
        group: np.corrcoef(
            timeseries.draw_series(
                timeseries.PATIENTS_STREAM, 0, timeseries.SeriesSubject("x", scanner, patient=group)
            )
        )
        for group in (0, 1)
    }
    for planted in metadata["diagnosis"]["couplings"]:
        asked = planted["asked_change_of_r"]
        assert planted["mean_r_after"] - planted["mean_r_before"] == pytest.approx(
            asked, abs=0.35 * abs(asked)
        )
        a, b = (series.in_networks(names, planted[end]) for end in ("between", "and"))
        block = np.outer(a, b) & ~np.eye(len(names), dtype=bool)
        # the same subject with and without: what varies between subjects is equal in both
        change = drawn[1][block].mean() - drawn[0][block].mean()
        assert change == pytest.approx(planted["mean_r_after"] - planted["mean_r_before"], abs=0.06)


def test_what_is_planted_is_said_in_words():
    metadata = timeseries.planted(timeseries.patient_subjects(0, 8))
    assert metadata["diagnosis"]["said"] == (
        "patients against controls: in the series, correlation of DefaultA with ContA and ContB -0.22, correlation within "
        "SomMotA and SomMotB +0.18, fluctuations of DefaultA and DefaultB x 0.70; in the T1, ventricles +1.2 mm, intensity "
        "at the hippocampi -6.0%"
    )
    assert metadata["cognition"]["said"] == (
        "each standard deviation: in the series, correlation of DorsAttnA and DorsAttnB with SalVentAttnA and SalVentAttnB "
        "+0.14, fluctuations of DorsAttnA and DorsAttnB x 1.22; in the T1, intensity of frontal white matter +2.5%"
    )


def test_planted_amplitudes_are_in_the_series():
    metadata = timeseries.planted(timeseries.patient_subjects(0, 8))
    names = sources.atlas().names
    scanner = timeseries.Scanner("long", 2.0, 4000)

    def log_size(**planted):
        drawn = timeseries.draw_series(
            timeseries.PATIENTS_STREAM, 0, timeseries.SeriesSubject("x", scanner, **planted)
        )
        return np.log(drawn.std(axis=1) / drawn.mean(axis=1))

    for endpoint, dose in (("diagnosis", {"patient": 1}), ("cognition", {"score": 1.0})):
        # the same subject with and without: what varies between subjects is equal in both
        change = log_size(**dose) - log_size()
        (planted,) = metadata[endpoint]["amplitudes"]
        inside = series.in_networks(names, planted["of"])
        assert change[inside].mean() == pytest.approx(np.log(planted["factor"]), abs=0.02)
        assert change[~inside].mean() == pytest.approx(0, abs=0.02)


def test_subjects_differ_in_the_size_of_their_networks_fluctuations():
    scanner = timeseries.Scanner("long", 2.0, 1000)
    drawn = [
        timeseries.draw_series(timeseries.PRETRAINING_STREAM, 0, timeseries.SeriesSubject(f"t{i}", scanner))
        for i in range(12)
    ]
    log_size = np.log([x.std(axis=1) / x.mean(axis=1) for x in drawn])
    network, n_networks = series.network_numbers(sources.atlas().names)
    of_networks = np.stack([log_size[:, network == i].mean(axis=1) for i in range(n_networks)])
    assert of_networks.std(axis=1, ddof=1).mean() == pytest.approx(timeseries.NETWORK_SPREAD, rel=0.2)


def test_series_are_tables_of_the_atlas(patients):
    table = pq.read_table(next(patients.glob("sub-c001/func/*.parquet")))
    assert tuple(table.column_names) == sources.atlas().names
    assert len(usable("patients", patients, "timeseries")) == 16


def test_a_folder_is_complete_or_absent(tmp_path):
    made_by = {"cohort": "x", "version": 1, "seed": 0}
    place = tmp_path / "x"

    def fails(root: Path) -> None:
        (root / "half").write_text("written")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        folder.make(place, made_by, fails)
    assert not place.exists()
    assert folder.make(place, made_by, lambda root: (root / "file").write_text("all"))
    assert not folder.make(place, made_by, fails)
    (place / "file").unlink()
    assert folder.make(place, made_by, lambda root: (root / "file").write_text("all"))
    assert folder.make(place, {**made_by, "seed": 1}, lambda root: (root / "file").write_text("new"))
    assert (place / "file").read_text() == "new"


def test_a_folder_of_the_users_is_not_touched(tmp_path):
    (tmp_path / "lemon").mkdir()
    (tmp_path / "lemon" / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"was not made by `bhx synth`: name another folder with --out"):
        make_cohorts(tmp_path, cohorts=["lemon"])
    assert (tmp_path / "lemon" / "thesis.tex").read_text() == "years of work"
