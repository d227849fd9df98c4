"""The batch job: every scan that cannot be used is a row, equal inputs give equal bytes."""

from __future__ import annotations

import errno
import gzip
import json

import nibabel as nib
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from settings_files import settings_file
from small_templates import ATLAS_AFFINE, ATLAS_SHAPE, MM, NAMES, SPACE

from bhx_model.contract import roi_sha256
from bhx_model.data import timeseries, volumes
from bhx_model.errors import DataError
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.config.features import FeaturesSection
from bhx_prep.features import extract, store
from bhx_prep.ingest import index

FILES = ["bold.arrow", "carpets.parquet", "qc.parquet", "t1w.arrow", "timeseries.parquet"]

SETTINGS = FeaturesSection(
    strategy="none", min_seconds=20, t1w_resolution_mm=4.0, t1w_shape=(40, 48, 40), harmonics=2, gradients=1
)


def write_bold(folder, name, data, tr_s=2.0, dtype=np.float32):
    folder.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(np.asarray(data, dtype), ATLAS_AFFINE)
    if image.ndim == 4:
        image.header.set_zooms((MM, MM, MM, tr_s))
        image.header.set_xyzt_units("mm", "sec")
    nib.save(image, folder / name)
    return folder / name


def write_confounds(folder, name, n, fd=0.1, seed=3):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({c: rng.standard_normal(n) for c in ("global_signal", "white_matter", "csf")})
    for c in ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"):
        table[c] = 0.01 * rng.standard_normal(n)
    table["framewise_displacement"] = [np.nan, *([fd] * (n - 1))]
    table.to_csv(folder / name, sep="\t", na_rep="n/a", index=False)


def brain_mm(mm=4.0, centre=(0, -20, 12), radii=(66, 85, 68)):
    """A brain-sized ellipsoid with texture, and its affine."""
    shape = tuple(int(200 / mm) for _ in range(3))
    affine = np.diag([mm, mm, mm, 1.0])
    affine[:3, 3] = -100, -120, -90
    place = np.indices(shape).T @ affine[:3, :3] + affine[:3, 3]
    inside = ((((place - centre) / radii) ** 2).sum(-1) <= 1).T
    data = np.where(inside, 600 + 40 * np.sin(np.indices(shape).sum(0) / 3), 0)
    return data.astype(np.float32), affine


@pytest.fixture(scope="module")
def derivatives(tmp_path_factory):
    """Five subjects of input fmriprep: good, moving, damaged, without scans of the task, and too short."""
    root = tmp_path_factory.mktemp("ward")
    (root / "dataset_description.json").write_text(
        '{"Name": "t", "BIDSVersion": "1.8.0", "DatasetType": "derivative", "GeneratedBy": [{"Name": "test"}]}'
    )
    rng = np.random.default_rng(0)
    data = 1000 + 30 * rng.standard_normal((*ATLAS_SHAPE, 40))
    t1w, affine = brain_mm()
    for subject, fd in (("01", 0.1), ("02", 0.9), ("03", 0.1), ("04", 0.1), ("05", 0.1)):
        func, anat = root / f"sub-{subject}" / "func", root / f"sub-{subject}" / "anat"
        anat.mkdir(parents=True)
        nib.save(nib.Nifti1Image(t1w, affine), anat / f"sub-{subject}_space-{SPACE}_desc-preproc_T1w.nii.gz")
        mask = nib.Nifti1Image((t1w > 0).astype(np.uint8), affine)
        nib.save(mask, anat / f"sub-{subject}_space-{SPACE}_desc-brain_mask.nii.gz")
        if subject == "04":
            continue
        n = 8 if subject == "05" else 40
        stem = f"sub-{subject}_task-rest"
        path = write_bold(func, f"{stem}_space-{SPACE}_desc-preproc_bold.nii.gz", data[..., :n])
        (func / f"{stem}_space-{SPACE}_desc-preproc_bold.json").write_text('{"RepetitionTime": 2.0}')
        mask = nib.Nifti1Image(np.ones(ATLAS_SHAPE, np.uint8), ATLAS_AFFINE)
        nib.save(mask, func / f"{stem}_space-{SPACE}_desc-brain_mask.nii.gz")
        write_confounds(func, f"{stem}_desc-confounds_timeseries.tsv", n, fd)
        if subject == "03":
            path.write_bytes(path.read_bytes()[:20000])
    return root


@pytest.fixture(scope="module")
def ward_index(derivatives, tmp_path_factory):
    cohort = CohortSection(input="fmriprep", root=derivatives, synthetic=True)
    path = tmp_path_factory.mktemp("index") / "ward.parquet"
    pq.write_table(index.build("ward", cohort), path)
    return path


@pytest.fixture(scope="module")
def table_index(tmp_path_factory):
    """One subject of input timeseries."""
    root = tmp_path_factory.mktemp("tables")
    (root / "sub-01").mkdir()
    table = pd.DataFrame(np.random.default_rng(1).normal(size=(50, 8)), columns=NAMES)
    table.to_csv(root / "sub-01" / "sub-01_task-rest_timeseries.csv", index=False)
    path = root / "index.parquet"
    pq.write_table(index.build("ward", CohortSection(input="timeseries", root=root, tr_s=0.8)), path)
    return path


def words(index_file, templates_folder, out, subjects="01,02,03,04,05,06", settings=SETTINGS, extra=()):
    labels = settings_file(subjects.split(",") if subjects else [])
    features = settings_file(settings.model_dump(mode="json"))
    return [
        *("--cohort", "ward", "--batch", "0", "--subjects", labels, "--index", str(index_file)),
        *("--templates", str(templates_folder), "--features", features),
        *("--space", SPACE, "--out", str(out), *extra),
    ]


def run(*args, **more):
    return extract.main(words(*args, **more))


def rows(out):
    return {(r["subject"], r["modality"]): r for r in pq.read_table(out / "qc.parquet").to_pylist()}


def test_a_batch_continues_after_every_unusable_scan(ward_index, templates_folder, tmp_path, capfd):
    out = tmp_path / "batch-00000"
    assert run(ward_index, templates_folder, out) == 0
    qc = rows(out)
    assert {k: r["status"] for k, r in qc.items() if k[1] == "bold"} == {
        ("01", "bold"): "ok",
        **{(s, "bold"): "excluded" for s in ("02", "03", "04", "05", "06")},
    }
    assert "mean framewise displacement 0.90 mm is above" in qc["02", "bold"]["reason"]
    assert "truncated" in qc["03", "bold"]["reason"]
    assert qc["04", "bold"]["reason"]
    assert "8 of 8 frames are kept, 16 s: less than features.min_seconds, 20" in qc["05", "bold"]["reason"]
    assert "no scan of this subject" in qc["06", "bold"]["reason"]
    good = qc["01", "bold"]
    assert (good["n_frames"], good["n_kept"], good["seconds"]) == (40, 40, 80.0)
    assert good["mean_fd_mm"] == pytest.approx(0.1)
    assert np.isnan(good["fd_mm"][0])
    assert good["n_rois_covered"] == 8
    assert good["mean_coverage"] == 1
    assert good["synthetic"] is True
    assert good["tsnr"] > 30
    assert "Traceback" not in capfd.readouterr().err

    table = pq.read_table(out / "timeseries.parquet")
    metadata = json.loads(table.schema.metadata[b"bhx"])
    assert metadata["names"] == NAMES
    assert metadata["roi_sha256"] == roi_sha256(metadata["atlas"], NAMES)
    assert metadata["strategy"] == "none"
    (run_row,) = table.to_pylist()
    assert run_row["key"] == "ward_sub-01_task-rest"
    assert run_row["anat"] == "ward_sub-01"
    assert len(run_row["series"]) == 8 * 40
    metadata_of_shard, [bold] = store.read(out / "bold.arrow")
    assert metadata_of_shard == metadata
    assert {name: bold.row[name] for name in ("key", "anat", "n_frames")} == {
        name: run_row[name] for name in ("key", "anat", "n_frames")
    }
    series = np.reshape(run_row["series"], (8, 40))
    np.testing.assert_allclose(timeseries.decode(bold.content), series, atol=series.std(axis=1).max() / 4096)
    _, t1ws = store.read(out / "t1w.arrow")
    assert [t1w.row["key"] for t1w in t1ws] == [f"ward_sub-0{i}" for i in range(1, 6)]
    volume = volumes.to_float32(volumes.decode(t1ws[0].content))
    assert list(volume.shape) == t1ws[0].row["shape"] == [40, 48, 40]
    assert 0.5 < volume[volume != 0].std() < 2
    assert t1ws[0].row["zooms_mm"] == [4, 4, 4]


def test_censored_runs_keep_which_frames_are_left(ward_index, templates_folder, tmp_path, derivatives):
    strategy = tmp_path / "own.yaml"
    strategy.write_text("{name: own, prose: p, citation: [], censor_fd_mm: 0.5}")
    table = derivatives / "sub-01" / "func" / "sub-01_task-rest_desc-confounds_timeseries.tsv"
    before = table.read_text()
    frame = pd.read_csv(table, sep="\t", na_values=["n/a"])
    frame.loc[[0, 7], "framewise_displacement"] = 3.0  # the first is no displacement
    frame.to_csv(table, sep="\t", na_rep="n/a", index=False)
    try:
        own = SETTINGS.model_copy(update={"strategy": str(strategy)})
        assert run(ward_index, templates_folder, tmp_path / "o", "01,02", settings=own) == 0
    finally:
        table.write_text(before)
    qc = rows(tmp_path / "o")
    found = qc["01", "bold"]
    assert (found["status"], found["n_kept"], found["max_fd_mm"]) == ("ok", 39, pytest.approx(0.1))
    assert np.flatnonzero(~np.array(found["kept"])).tolist() == [7]
    [row] = pq.read_table(tmp_path / "o" / "timeseries.parquet").to_pylist()
    [sample] = store.read(tmp_path / "o" / "bold.arrow")[1]
    assert row["segments"] == sample.row["segments"] == [[0, 7], [8, 40]]
    assert row["n_frames"] == 39
    assert "only 1 of 40 frames remain" in qc["02", "bold"]["reason"]


@pytest.mark.parametrize(
    ("function", "call"), [("Extraction.t1w", 2), ("store.Writer.add", 3), ("Path.replace", 2)]
)
def test_equal_inputs_give_equal_bytes_after_a_kill(
    ward_index, templates_folder, tmp_path, check_kill, function, call
):
    check_kill(
        "bhx_prep.features.extract",
        function,
        call,
        lambda out: words(ward_index, templates_folder, out, "01,02"),
    )
    assert sorted(p.name for p in (tmp_path / "killed").iterdir()) == FILES


def test_a_full_disk_stops_the_job(ward_index, templates_folder, tmp_path, monkeypatch, capfd):
    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(extract.store.Writer, "add", full)
    assert run(ward_index, templates_folder, tmp_path / "o", "01") == 1
    assert "the disk is full" in capfd.readouterr().err
    assert not list((tmp_path / "o").iterdir())


def broadcast(*_args, **_kwargs):
    np.zeros(3) + np.zeros(4)


def missing_key(*_args, **_kwargs):
    {}["no such key"]


def failed_assertion(*_args, **_kwargs):
    raise AssertionError


@pytest.mark.parametrize(
    ("bug", "error"),
    [(broadcast, ValueError), (missing_key, KeyError), (failed_assertion, AssertionError)],
)
@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("volume", "bhx_prep.features.parcellate_volume.Groups.sum"),
        ("volume", "bhx_prep.features.confounds._signals"),
        ("volume", "bhx_prep.features.qc.tsnr"),
        ("volume", "bhx_prep.features.denoise.denoise"),
        ("volume", "bhx_model.data.timeseries.encode"),
        ("t1w", "bhx_model.data.t1w.check_place"),
        ("t1w", "bhx_model.data.volumes.encode"),
        ("table", "bhx_prep.features.timeseries.match_names"),
        ("table", "bhx_prep.features.timeseries._checked"),
        ("table", "bhx_prep.features.qc.covered"),
    ],
)
def test_a_bug_stops_the_job_and_writes_nothing(
    ward_index, table_index, templates_folder, tmp_path, monkeypatch, bug, error, kind, place
):
    monkeypatch.setattr(place, bug)
    with pytest.raises(error) as caught:
        run(table_index if kind == "table" else ward_index, templates_folder, tmp_path / "o", "01")
    assert not isinstance(caught.value, DataError)
    assert not list((tmp_path / "o").iterdir())


def test_an_atlas_that_is_not_there_stops_the_job(ward_index, templates_folder, tmp_path, capfd):
    """It is no fault of a scan."""
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "atlas.json").write_bytes((templates_folder / "atlas.json").read_bytes())
    assert run(ward_index, folder, tmp_path / "o", "01") == 1
    assert "is not there on MNI152NLin2009cAsym" in capfd.readouterr().err
    (folder / "atlas_volume.nii.gz").write_bytes(b"no image")
    assert run(ward_index, folder, tmp_path / "o", "01") == 1
    assert "make the templates again" in capfd.readouterr().err
    assert not list((tmp_path / "o").iterdir())


def test_strategy_of_the_paper_on_a_run_that_has_its_columns(ward_index, templates_folder, tmp_path):
    settings = SETTINGS.model_copy(update={"strategy": "24p+gsr"})
    run(ward_index, templates_folder, tmp_path / "o", "01", settings)
    reason = rows(tmp_path / "o")["01", "bold"]["reason"]
    assert "nothing would remain" in reason  # 25 confounds on 80 s: said, not done
    settings = SETTINGS.model_copy(update={"strategy": "no-such"})
    assert run(ward_index, templates_folder, tmp_path / "p", "01", settings) == 1


@pytest.mark.parametrize("status", ["failed", "absent", "ok"])
def test_raw_scans_are_joined_with_their_derivatives(derivatives, templates_folder, tmp_path, status):
    raw = dict.fromkeys(index.SCHEMA.names)
    raw |= {
        "cohort": "ward",
        "input": "bids",
        "subject": "01",
        "status": "ok",
        "kind": "raw",
        "synthetic": True,
    }
    bold = raw | {
        "modality": "bold",
        "key": "ward_sub-01_task-rest",
        "path": "/raw/sub-01_task-rest_bold.nii.gz",
    }
    other = bold | {"key": "ward_sub-01_task-rest_run-2", "path": "/raw/sub-01_task-rest_run-2_bold.nii.gz"}
    t1w = raw | {"modality": "t1w", "key": "ward_sub-01", "path": "/raw/sub-01_T1w.nii.gz"}
    pq.write_table(pa.Table.from_pylist([bold, other, t1w], index.SCHEMA), tmp_path / "i.parquet")
    made = tmp_path / "preproc"
    made.mkdir()
    (made / "sub-01").symlink_to(derivatives / "sub-01")
    metadata = {"status": status, "reason": "the skull was not found", "log": "a.log"}
    metadata["excluded"] = [{"file": "sub-01_task-rest_run-2_bold.nii.gz", "reason": "it has one frame"}]
    if status != "absent":
        (made / "sub-01_status.json").write_text(json.dumps(metadata))
    out = tmp_path / "o"
    assert run(tmp_path / "i.parquet", templates_folder, out, "01", extra=["--derivatives", str(made)]) == 0
    found = {r["key"]: r for r in pq.read_table(out / "qc.parquet").to_pylist()}
    assert set(found) == {"ward_sub-01_task-rest", "ward_sub-01_task-rest_run-2", "ward_sub-01"}
    if status == "ok":
        assert found["ward_sub-01_task-rest"]["status"] == found["ward_sub-01"]["status"] == "ok"
        assert found["ward_sub-01_task-rest_run-2"]["reason"] == "it has one frame"
    else:
        expected = "the skull was not found" if status == "failed" else "was not preprocessed"
        assert all(expected in row["reason"] for row in found.values())


def test_given_tables_are_used_as_they_are(templates_folder, tmp_path, rng):
    root = tmp_path / "town"
    series = 9000 + rng.standard_normal((8, 50))
    for subject, names in (("a", NAMES), ("b", [n.replace("17N", "7N") for n in NAMES])):
        (root / f"sub-{subject}").mkdir(parents=True)
        table = pd.DataFrame(series, columns=[f"t{i}" for i in range(50)])
        table.insert(0, "label_name", names)
        with gzip.open(root / f"sub-{subject}" / f"sub-{subject}_task-rest_timeseries.csv.gz", "wt") as file:
            table.to_csv(file, index=False)
    cohort = CohortSection(input="timeseries", root=root, tr_s=0.8)
    pq.write_table(index.build("ward", cohort), tmp_path / "i.parquet")
    # the rule names the folder of preprocessing for every cohort; only raw ones have been there
    nothing = ["--derivatives", str(tmp_path / "preproc")]
    assert run(tmp_path / "i.parquet", templates_folder, tmp_path / "o", "a,b", extra=nothing) == 0
    qc = rows(tmp_path / "o")
    assert qc["a", "bold"]["status"] == "ok"
    assert qc["a", "bold"]["strategy"] == "as given"
    assert qc["a", "bold"]["mean_fd_mm"] is None
    assert "7-network order" in qc["b", "bold"]["reason"]
    (row,) = pq.read_table(tmp_path / "o" / "timeseries.parquet").to_pylist()
    np.testing.assert_array_equal(np.float32(row["series"]).reshape(8, 50), series.astype(np.float32))


def decide(*scans):
    """Options by which scans, each (stem, modality, decision), are decided."""
    listed = [
        {"modality": modality, "key": f"ward_{stem}", "decision": decision, "why": "seen"}
        for stem, modality, decision in scans
    ]
    return ("--decisions", settings_file(listed))


def test_decisions_exclude_what_passes_and_keep_what_fails_a_limit(ward_index, templates_folder, tmp_path):
    extra = decide(
        ("sub-01_task-rest", "bold", "exclude"),
        ("sub-02_task-rest", "bold", "keep"),
        ("sub-03_task-rest", "bold", "keep"),
        ("sub-01", "t1w", "exclude"),
        ("sub-02", "t1w", "keep"),
    )
    assert run(ward_index, templates_folder, tmp_path, subjects="01,02,03", extra=extra) == 0
    found = rows(tmp_path)
    assert found["01", "bold"]["reason"] == "excluded by a decision: seen"
    assert found["01", "bold"]["mean_fd_mm"] == pytest.approx(0.1)  # its numbers stay to be seen
    assert found["01", "t1w"]["status"] == "excluded"
    moving = found["02", "bold"]
    assert (moving["status"], moving["decision"]) == ("ok", "keep")
    assert "features.max_mean_fd_mm" in moving["overruled"]
    assert [note for note in moving["notes"] if note.startswith("kept by a decision: seen; ")]
    # a decision that overrules nothing is no note
    assert not [note for note in found["02", "t1w"]["notes"] if note.startswith("kept by")]
    damaged = found["03", "bold"]
    assert damaged["status"] == "excluded"
    assert damaged["reason"].endswith("; it cannot be kept, as was decided")
    kept = pq.read_table(tmp_path / "timeseries.parquet")["subject"].to_pylist()
    assert kept == ["02"]


def test_a_run_without_even_a_patch_cannot_be_kept(ward_index, templates_folder, tmp_path):
    extra = decide(("sub-05_task-rest", "bold", "keep"))
    assert run(ward_index, templates_folder, tmp_path, subjects="05", extra=extra) == 0
    assert "it cannot be kept" in rows(tmp_path)["05", "bold"]["reason"]


def test_a_decision_on_a_scan_that_was_not_made_is_a_warning(ward_index, templates_folder, tmp_path, caplog):
    extra = decide(("sub-01", "t1w", "keep"), ("sub-01_ses-1", "t1w", "keep"))
    assert run(ward_index, templates_folder, tmp_path, subjects="01", extra=extra) == 0
    assert [r.message for r in caplog.records if "changes nothing" in r.message] == [
        "ward: a decision on ward_sub-01_ses-1 changes nothing: preprocessing made no such scan"
    ]


def test_overruled_limits_of_preprocessing_are_noted(derivatives, ward_index, templates_folder, tmp_path):
    file = derivatives / "sub-01/anat/sub-01_desc-quality_T1w.json"
    file.write_text('{"norm_dice": 0.6, "failed": ["norm_dice"]}')
    try:
        extra = decide(("sub-01", "t1w", "keep"), ("sub-01_task-rest", "bold", "keep"))
        assert run(ward_index, templates_folder, tmp_path, subjects="01", extra=extra) == 0
    finally:
        file.unlink()
    found = rows(tmp_path)
    assert found["01", "t1w"]["overruled"] == "preprocessing found that it fails norm_dice"
    assert found["01", "bold"]["overruled"] is None
