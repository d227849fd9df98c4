from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from settings_files import settings_file

from bhx_model.errors import DataError
from bhx_model.evaluation import prediction_file
from bhx_model.evaluation.labels import Labels
from bhx_prep.config import config
from bhx_prep.evaluation.baselines import __main__ as command
from bhx_prep.evaluation.baselines import covariates

N = 40


def made(make_shards, tmp_path: Path, columns: dict, *, fd: bool = True) -> Path:
    """Covariates of N subjects: patients, odd ones, move more and come from site B; the first has no row."""
    rng = np.random.default_rng(0)
    series = {f"sub-{i:02d}_task-rest": rng.standard_normal((4, 20)).astype(np.float32) for i in range(N)}
    index = make_shards("clinic", [series])
    lines = ["participant_id\tage\tsex\tcentre\tdate"]
    lines += [
        f"sub-{i:02d}\t{20 + i}\t{'MF'[i // 2 % 2]}\t{'AB'[i % 2]}\t{2001 + i % 2}-03-04" for i in range(1, N)
    ]
    (tmp_path / "participants.tsv").write_text("\n".join(lines) + "\n")
    qc = [
        {
            "subject": f"{i:02d}",
            "modality": "bold",
            "status": "ok",
            "mean_fd_mm": 0.1 + 0.3 * (i % 2) if fd else None,
        }
        for i in range(N)
    ]
    kinds = pa.schema(
        [
            ("subject", pa.string()),
            ("modality", pa.string()),
            ("status", pa.string()),
            ("mean_fd_mm", pa.float64()),
        ]
    )
    pq.write_table(pa.Table.from_pylist(qc, kinds), tmp_path / "qc.parquet")
    volume = nib.Nifti1Image(np.zeros((2, 2, 2, 2), np.float32), np.diag([2.0, 2.0, 4.0, 1.0]))
    nib.save(volume, tmp_path / "x.nii.gz")
    scan = {
        "subject": "01",
        "modality": "bold",
        "status": "ok",
        "kind": "volume",
        "path": str(tmp_path / "x.nii.gz"),
    }
    gone = scan | {"subject": "02", "path": str(tmp_path / "gone.nii.gz")}
    pq.write_table(pa.Table.from_pylist([scan, gone]), tmp_path / "index.parquet")
    out = tmp_path / "covariates.parquet"
    args = [
        "--shards",
        index,
        "--index",
        tmp_path / "index.parquet",
        "--qc",
        tmp_path / "qc.parquet",
        "--out",
        out,
    ]
    args += ["--participants", tmp_path / "participants.tsv", "--columns", settings_file(columns)]
    assert covariates.main([str(arg) for arg in args]) == 0
    return out


def labels() -> Labels:
    names = np.array([("train", "train", "train", "val", "test")[i // 2 % 5] for i in range(N)])
    subjects = [f"{i:02d}" for i in range(N)]
    return Labels("e", "clinic", "binary", ["control", "patient"], 3, subjects, np.arange(N) % 2, names)


ALL = {"age": "age", "sex": "sex", "site": "centre", "scan_year": "date"}


def test_what_is_known_of_a_subject(make_shards, tmp_path: Path) -> None:
    rows = covariates.read(made(make_shards, tmp_path, ALL)).rows
    one = rows["clinic/01"]
    assert (one["age"], one["sex"], one["site"], one["scan_year"]) == (21, "M", "B", 2002)
    assert one["mean_fd_mm"] == pytest.approx(0.4)
    assert one["n_runs"] == 1
    assert one["run_s"] == one["tr_s"] * 20
    assert one["voxel_mm"] == pytest.approx(16 ** (1 / 3))
    nobody = rows["clinic/00"]
    assert [nobody[key] for key in ("age", "sex", "site", "scan_year")] == [None] * 4
    assert rows["clinic/02"]["voxel_mm"] is None


@pytest.mark.parametrize(
    ("method", "finds"), [("site", True), ("motion", True), ("age_sex", False), ("acquisition", True)]
)
def test_a_floor_is_as_good_as_what_it_reads(make_shards, tmp_path: Path, method: str, finds: bool) -> None:
    file, one = made(make_shards, tmp_path, ALL), labels()
    rows = [
        {"subject": s, "label": int(t), "split": str(p)}
        for s, t, p in zip(one.subjects, one.target, one.split, strict=True)
    ]
    split = {
        "endpoint": "e",
        "cohort": "clinic",
        "kind": "binary",
        "classes": one.classes,
        "seed": 3,
        "rows": rows,
    }
    (tmp_path / "seed-3.json").write_text(json.dumps(split))
    args = ["--method", method, "--labels", str(tmp_path / "seed-3.json"), "--features", str(file)]
    assert command.main([*args, "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out/metrics.json").read_text())
    assert (found["metrics"]["accuracy"] == 1) == finds
    assert found["n_missing"] == (0 if method in ("motion", "acquisition") else 1)
    assert len(prediction_file.read(tmp_path / "out/predictions.parquet").people) == N


def test_what_is_missing_has_an_indicator_and_a_level_of_test_subjects_alone_is_none(
    make_shards, tmp_path: Path
) -> None:
    table, one = covariates.read(made(make_shards, tmp_path, ALL)), labels()
    tested = np.flatnonzero(one.of("test"))[0]
    table.rows[f"clinic/{tested:02d}"]["site"] = "elsewhere"
    features, n_missing = covariates.encode(table, "site", one)
    assert features.shape == (N, 3)  # A, B, and missing
    assert n_missing == 1
    assert features[tested].tolist() == [0, 0, 0]
    assert features[0].tolist() == [0, 0, 1]
    ages, _ = covariates.encode(table, "age_sex", one)
    assert np.isnan(ages[0, 0])
    assert ages[0, 1:].tolist() == [1, 0, 0, 1]  # age is missing; neither F nor M, which is missing, too


def test_a_covariate_without_values_is_an_error_message(make_shards, tmp_path: Path) -> None:
    table = covariates.read(made(make_shards, tmp_path, {}, fd=False))
    with pytest.raises(
        DataError, match="mean_fd_mm of clinic is not known of any training subject: name the column"
    ):
        covariates.encode(table, "motion", labels())


def test_a_method_whose_column_is_not_named_is_a_mistake_of_the_configuration() -> None:
    cohort = {"input": "timeseries", "root": "a"}
    endpoint = {
        "cohort": "a",
        "column": "age",
        "kind": "regression",
        "methods": ["site", "motion", "volumes"],
    }
    raw = {"cohorts": {"a": cohort}, "endpoints": {"x": endpoint}}
    with pytest.raises(config.ConfigError) as found:
        config.check(raw)
    assert str(found.value).count("endpoints.x.methods: ") == 3
    cohort |= {"columns": {"site": "SITE", "motion": "fd"}, "morphometry": "volumes.csv"}
    assert config.check(raw).endpoints["x"].baselines == ["fc", "volumes", "site", "motion"]
