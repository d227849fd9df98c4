"""A small tree of results in the formats of the other steps, made of noise and a sphere."""

from __future__ import annotations

import json
from pathlib import Path

import inside_files
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from meshes import sphere, write_surface

from bhx_model.contract import roi_sha256
from bhx_model.evaluation import metrics, prediction_file
from bhx_model.evaluation.methods import BASELINES
from bhx_model.evaluation.prediction_file import PredictionTable, people_sha256
from bhx_prep.config import config
from bhx_prep.features.fingerprint import fingerprint
from bhx_prep.features.table_columns import QC_SCHEMA, SERIES_SCHEMA
from bhx_prep.report.tables.build import build
from bhx_prep.report.tables.scores import Score
from bhx_prep.report.tables.write import write as write_table

NETWORKS = ("VisCent", "SomMotA", "DefaultA", "ContB")
NAMES = [f"17Networks_{h}_{net}_{i}" for h in ("LH", "RH") for net in NETWORKS for i in (1, 2)]
HEMISPHERE = [0] * 8 + [1] * 8
R = len(NAMES)
ATLAS = "Schaefer17n16p"
#: Losses of the function stage beside its own, on the held-out subjects.
CONNECTIVITY = {"connectivity": 0.4321, "connectivity_mean_predictor": 0.8765}

CONFIG = config.check(
    {
        "cohorts": {
            "raw": {"input": "bids", "root": "rawdata", "synthetic": True},
            "patients": {"input": "fmriprep", "root": "derivatives", "subjects": ["secret1", "secret2"]},
            "anatomical": {"input": "timeseries", "root": "tables"},
        },
        "experiments": {"demo": {"cohorts": ["patients"], "preset": "tiny"}, "later": {"cohorts": ["patients"]}},
        "endpoints": {
            "diagnosis": {
                "cohort": "patients", "column": "diagnosis", "kind": "binary", "classes": ["control", "patient"],
                "paper": "ABIDE-I", "paper_beside_synthetic": True,
            },
            "cognition": {"cohort": "patients", "column": "score", "kind": "regression"},
        },
    }
)  # fmt: skip


PEOPLE = [f"secret{i}" for i in range(1, 51)]


def score(
    method="fc", seed=0, endpoint="diagnosis", accuracy=None, synthetic=True, experiment="demo", **changes
):
    """A row's score on one split of 50 subjects, 10 of whom are tested on; predictions are noise, or right so often.

    `changes` are values of ``metrics.json``.
    """
    regression = endpoint == "cognition"
    order = np.random.default_rng(seed).permutation(len(PEOPLE))
    split = np.array(["train"] * 30 + ["val"] * 10 + ["test"] * 10)[np.argsort(order)]
    rng = np.random.default_rng([seed, *method.encode(), *experiment.encode()])
    truth = np.arange(50) / 10 if regression else np.arange(50.0) % 2
    if regression:
        predicted = truth + rng.normal(size=50)
        scores = predicted[:, None]
    else:
        right = rng.random(50) < 0.6
        if accuracy is not None:
            right[order[40:]] = np.arange(10) < round(10 * accuracy)
        predicted = np.where(right, truth, 1 - truth)
        chance = np.abs(predicted - rng.uniform(0.05, 0.45, 50))
        scores = np.stack([1 - chance, chance], axis=1)
    people = np.array(PEOPLE), np.array(["patients"] * 50)
    predictions = PredictionTable(*people, split, truth, predicted, scores)
    test = split == "test"
    found = (
        metrics.regression(truth[test], predicted[test])
        if regression
        else metrics.classification(truth[test].astype(int), predicted[test].astype(int), scores[test], 2)
    )
    kind = "regression" if regression else "binary"
    train = truth[split == "train"].tolist()
    constant = metrics.constant_prediction(kind, train, truth[test].tolist(), 0 if regression else 2)
    values = {
        "experiment": None if method in BASELINES else experiment,
        "endpoint": endpoint,
        "method": method,
        "seed": seed,
        "kind": kind,
        "classes": [] if regression else ["control", "patient"],
        "n_train": 30,
        "n_val": 10,
        "n_test": 10,
        "people_sha256": people_sha256(predictions.people),
        "split_sha256": f"{seed:064d}",
        "metrics": found,
        "constant": constant,
        "synthetic": synthetic,
        "made_with": {"commit": "c" * 40, "python": "3.11.7", "packages": {"numpy": "2.0.0"}},
    }
    return Score(Path(f"{method}_seed-{seed}/metrics.json"), values | changes, predictions)


def write_score(root: Path, of: Score) -> Path:
    """Write a score where the pipeline has it; returns its ``metrics.json``."""
    base = root / "experiments" / of.experiment if of.experiment else root
    folder = base / "endpoints" / of["endpoint"] / f"{of['method']}_seed-{of['seed']}"
    folder.mkdir(parents=True, exist_ok=True)
    table = of.predictions
    prediction_file.write(
        folder / "predictions.parquet",
        [
            {
                "subject": table.subject[i], "cohort": table.cohort[i], "split": table.split[i],
                "truth": table.truth[i], "prediction": table.prediction[i], "score": table.scores[i, -1],
                "probabilities": [] if of["kind"] == "regression" else table.scores[i].tolist(),
            }
            for i in range(len(table.subject))
        ],
    )  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(dict(of.values)))
    return folder / "metrics.json"


def write_templates(folder: Path) -> None:
    """An atlas of `R` parcels on spheres, and its harmonics."""
    folder.mkdir(parents=True)
    metadata = {
        "label": ATLAS, "names": NAMES, "hemisphere": HEMISPHERE, "space": "MNI152NLin2009cAsym",
        "files": {"atlas_volume.nii.gz": "a" * 64}, "source": "made for a test",
    }  # fmt: skip
    (folder / "atlas.json").write_text(json.dumps(metadata))
    vertices, faces = sphere()
    label = 1 + (np.arctan2(vertices[:, 1], vertices[:, 0]) // (np.pi / 4)).astype("i2") + 4
    label = np.clip(label, 1, 8).astype("i2")
    label[vertices[:, 2] > 40] = 0
    for hemisphere in ("left", "right"):
        write_surface(folder / f"inflated_{hemisphere}.surf.gii", vertices, faces)
    np.savez(folder / "atlas_fsLR.npz", left=label, right=np.where(label, label + 8, 0).astype("i2"))
    rng = np.random.default_rng(0)
    modes = {f"mode_{m:03d}": rng.normal(size=R) for m in range(1, 13)}
    _table(
        folder / "harmonics.parquet",
        {"name": NAMES, "hemisphere": HEMISPHERE, **modes},
        {
            "atlas": ATLAS,
            "roi_sha256": roi_sha256(ATLAS, NAMES),
            "eigenvalues": [[i * 2e-4 for i in range(12)]] * 2,
        },
    )


def _table(path: Path, columns, metadata=None) -> None:
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    if metadata:
        table = table.replace_schema_metadata({b"bhx": json.dumps(metadata).encode()})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


NOTE = "repetition time chosen: 2 s of the sidecar, the header of sub-secret1 states 1 s <b>"


LABEL_NOTES = [
    "table read with an assumption: 2 ids of p.tsv are spelt otherwise than the subjects', e.g. 'secret_1' for secret1",
    "table read with an assumption: <b>: read as unknown are '-9999' (3 x), '<script>' (1 x)",
]


def _scan(cohort, input, subject, modality, key, **more):
    row = {
        "cohort": cohort, "input": input, "subject": subject, "modality": modality, "key": key, "session": None,
        "task": "rest" if modality == "bold" else None, "run": None, "kind": "volume", "tr_s": 2.0, "n_frames": 60.0,
        "path": f"/secret/place/{subject}.nii.gz", "synthetic": True, "status": "ok", "reason": None,
        "notes": [NOTE] if modality == "bold" else [],
    }  # fmt: skip
    return row | more


def _cohorts(results: Path) -> None:
    rng = np.random.default_rng(1)
    scans = []
    for i in range(1, 6):
        subject = f"secret{i}"
        scans.append(_scan("patients", "fmriprep", subject, "bold", f"patients_sub-{subject}_task-rest"))
        scans.append(_scan("patients", "fmriprep", subject, "t1w", f"patients_sub-{subject}"))
    scans[8] |= {
        "status": "excluded",
        "reason": "sub-secret5 has no confounds beside /secret/place/sub-secret5.nii.gz",
    }
    index = pd.DataFrame(scans)
    (results / "patients").mkdir(parents=True)
    index.to_parquet(results / "patients" / "index.parquet")
    quality, series, first = [], [], np.empty(0)
    for i, scan in enumerate(scans):
        fd = np.abs(rng.normal(0.1 + 0.1 * i, 0.05, 60)).astype("f4")
        bold = scan["modality"] == "bold"
        out = scan["status"] == "excluded"
        moved = bold and i == 6
        quality.append(
            {
                "cohort": "patients", "subject": scan["subject"], "key": scan["key"], "modality": scan["modality"],
                "status": "excluded" if out or moved else "ok",
                "reason": scan["reason"] if out else "mean FD 0.71 mm is above 0.5 mm" if moved else None,
                "tr_s": 2.0 if bold else None, "n_frames": 60.0 if bold else None, "n_kept": 58.0 if bold else None,
                "mean_fd_mm": float(fd.mean()) if bold else None, "max_fd_mm": float(fd.max()) if bold else None,
                "fd_mm": fd.tolist() if bold else None, "mean_coverage": 0.97 if bold else None,
                "n_rois_covered": 15.0 if bold else None, "tsnr": 80.0 if bold else None, "strategy": "paper",
                "synthetic": True, "seconds": 1.0, "notes": scan["notes"],
            }
        )  # fmt: skip
        if bold and not out and not moved:
            data = rng.normal(size=(R, 60)).astype("f4")
            data[3] = np.nan
            if i == 0:
                first = data
            elif i == 4:  # the same run under two subjects
                data = first
            series.append(
                {
                    "key": scan["key"], "subject": scan["subject"], "session": None, "task": "rest", "run": None,
                    "anat": None, "tr_s": 2.0, "n_frames": 60, "segments": None, "synthetic": True,
                    "series": data.ravel().tolist(),
                    "coverage": [0.4 if r == 3 else 1.0 for r in range(R)],
                    "fingerprint": fingerprint(data).tolist(),
                }
            )  # fmt: skip
    metadata = {
        "atlas": ATLAS,
        "names": NAMES,
        "hemisphere": HEMISPHERE,
        "roi_sha256": roi_sha256(ATLAS, NAMES),
    }
    metadata |= {"strategy": "paper", "shape_order": "roi,frame"}
    for batch, rows in enumerate((slice(0, 6), slice(6, None))):
        folder = results / "patients" / "features" / f"batch-{batch:05d}"
        keys = {q["key"] for q in quality[rows]}
        whole = [dict.fromkeys(QC_SCHEMA.names) | row for row in quality[rows]]
        _table(folder / "qc.parquet", pa.Table.from_pylist(whole, QC_SCHEMA))
        kept = [s for s in series if s["key"] in keys]
        _table(folder / "timeseries.parquet", pa.Table.from_pylist(kept, SERIES_SCHEMA), metadata)
    (results / "patients" / "shards").mkdir()
    check = {"notes": ["ROI order not confirmed by the series: such as patients_sub-secret1_task-rest"]}
    (results / "patients" / "check.json").write_text(json.dumps(check))
    (results / "patients" / "shards" / "index.json").write_text(json.dumps({"cohort": "patients"}))

    # a cohort with T1 images alone, and one whose preprocessing failed for its one subject
    alone = pd.DataFrame(
        [_scan("anatomical", "timeseries", "s1", "t1w", "anatomical_sub-s1", synthetic=False)]
    )
    (results / "anatomical").mkdir()
    alone.to_parquet(results / "anatomical" / "index.parquet")
    raw = pd.DataFrame([_scan("raw", "bids", "01", "bold", "raw_sub-01_task-rest")])
    (results / "raw" / "preproc").mkdir(parents=True)
    raw.to_parquet(results / "raw" / "index.parquet")
    status = {
        "subject": "01",
        "status": "failed",
        "reason": "no brain was found in sub-01_T1w.nii.gz",
        "backend": "embedded",
    }
    (results / "raw" / "preproc" / "sub-01_status.json").write_text(json.dumps(status))


def _experiment(results: Path) -> None:
    folder = results / "experiments" / "demo"
    rng = np.random.default_rng(2)
    sha = {"atlas": ATLAS, "roi_sha256": roi_sha256(ATLAS, NAMES)}
    _table(
        folder / "subjects/gradients.parquet",
        {"name": NAMES, **{f"gradient_{g:02d}": rng.normal(size=R) for g in range(1, 4)}},
        sha,
    )
    columns = {"name": NAMES, "median": rng.normal(size=R), "iqr": rng.uniform(1, 2, size=R), "n": [4] * R}
    _table(folder / "subjects/normaliser.parquet", columns, sha)
    (folder / "subjects/pretrain.json").write_text(
        json.dumps({"train": ["patients/secret1", "patients/secret2"], "holdout": []})
    )
    for stage in ("structure", "function", "fusion"):
        (folder / stage).mkdir()
        lines = [json.dumps({"step": s, "loss": 2.0 / (1 + s), "lr": 1e-3}) for s in range(10)]
        lines.insert(5, json.dumps({"step": 5, "holdout_loss": 0.5}))
        (folder / stage / "metrics.jsonl").write_text("\n".join(lines) + "\n{cut off")
        run = {
            "stage": stage,
            "loss": {"mean_predictor": 1.0, **(CONNECTIVITY if stage == "function" else {})},
            "counts": {"parameters": 123456},
            "seconds": 12.0,
            **({"target": {"share_of_start": 0.95, "moved": 0.02}} if stage == "function" else {}),
        }
        (folder / stage / "run.json").write_text(json.dumps(run))


def write(root: Path) -> None:
    """Write a results folder with three cohorts, an experiment and tables of both kinds."""
    write_templates(root / "templates")
    _cohorts(root)
    _experiment(root)
    for name, endpoint in CONFIG.endpoints.items():
        scores = [
            score(method, seed, name)
            for method in ("fc", "probe", "finetune", "function_regions", "function_regions_untrained")
            for seed in range(3)
        ]
        write_table(build(name, endpoint, scores), root / "tables" / name)
        for seed in range(3):
            path = root / "endpoints" / name / f"seed-{seed}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"notes": LABEL_NOTES if name == "cognition" else []}))
    folder = root / "experiments" / "demo"
    inside_files.write_endpoint(folder / "inspection/diagnosis.npz", NAMES, [0.9, 0.8, 0.5, 0.1])
    inside_files.write_reconstructions(folder / "reconstructions.npz")
    inside_files.write_pattern(
        root / "endpoints/diagnosis/connectivity_pattern.npz",
        np.random.default_rng(3).normal(size=(R, R)),
        NAMES,
    )
