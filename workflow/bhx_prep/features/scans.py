"""The scans of a batch of subjects: rows of the index, joined with the derivatives of raw ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bhx_model.errors import DataError
from bhx_prep.ingest import index
from bhx_prep.ingest.choice import T1W_MM
from bhx_prep.io import bids_names, notes
from bhx_prep.io.spaces import SURFACES
from bhx_prep.preproc.dataset_description import other_source
from bhx_prep.preproc.status import failure

Row = dict[str, Any]


def scans_of(
    index_file: Path,
    cohort: str,
    subjects: Sequence[str],
    *,
    derivatives: Path | None,
    space: str,
    t1w_mm: float = T1W_MM,
) -> list[Row]:
    """Rows of the index of some subjects, sorted; for raw data with the paths of what preprocessing made of them.

    Parameters
    ----------
    index_file : Path
        ``.bhx/index/<cohort>.parquet``.
    cohort : str
    subjects : sequence of str
        A subject without any row gets one that is excluded.
    derivatives : Path, optional
        Output of the preprocessing; only cohorts with `input: bids` have one.
    space : str
        Space of the BOLD derivatives.
    t1w_mm : float
        Voxel size (mm) of the model's T1 grid.

    Raises
    ------
    DataError
        If the index cannot be read, or the derivatives are of another dataset.
    """
    try:
        rows = pq.read_table(index_file, filters=[("subject", "in", list(subjects))]).to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        msg = f"cannot read the index {index_file}: {error}; make it with `bhx index`"
        raise DataError(msg) from error
    if derivatives is not None and any(row["input"] == "bids" for row in rows):
        _check_source(rows, cohort, derivatives)
        rows = list(_preprocessed(rows, cohort, subjects, derivatives, space, t1w_mm))
    known = {row["subject"] for row in rows}
    for subject in subjects:
        if subject not in known:
            row = dict.fromkeys(index.SCHEMA.names)
            row |= {"cohort": cohort, "subject": subject, "key": bids_names.sample_key(cohort, subject, {})}
            row |= {
                "modality": "bold",
                "status": "excluded",
                "reason": "no scan of this subject is in the index",
            }
            rows.append(row)
    return sorted(rows, key=lambda row: (row["subject"], row["modality"], row["key"]))


def _check_source(rows: Sequence[Row], cohort: str, derivatives: Path) -> None:
    """Refuse derivatives of another cohort, whose subjects may have the same labels.

    Those of a subject that ended well are of a dataset that the description names.
    """
    raw = next(
        (Path(row["path"]) for row in rows if row["path"] and _ended_well(derivatives, row["subject"])), None
    )
    if raw is not None and (other := other_source(derivatives, raw)):
        msg = f"{derivatives} holds derivatives of {other}, not of cohort {cohort}: remove the folder, and start again"
        raise DataError(msg)


def _ended_well(derivatives: Path, subject: str) -> bool:
    path = derivatives / f"sub-{subject}_status.json"
    return path.is_file() and _status(path)[0] is None


def _preprocessed(
    raw: list[Row], cohort: str, subjects: Sequence[str], derivatives: Path, space: str, t1w_mm: float
) -> Iterator[Row]:
    """Join raw scans with their derivatives by key; what has none is excluded with the reason."""
    made = index.derivatives(
        derivatives, cohort=cohort, space=space, subjects=list(subjects), t1w_mm=t1w_mm
    ).to_pylist()
    by_key = {(row["modality"], bids_names.same_scan(row["key"])): row for row in made}
    statuses = {subject: _status(derivatives / f"sub-{subject}_status.json") for subject in subjects}
    used = set()
    for scan in raw:
        failed, excluded, noted = statuses[scan["subject"]]
        noted_here = noted.get(Path(scan["path"]).name, []) if scan["path"] else []
        place = scan["modality"], bids_names.same_scan(scan["key"])
        derived = by_key.get(place)
        if scan["status"] != "ok":
            yield scan
            continue
        if failed:
            yield {**scan, "status": "excluded", "reason": failed}
            continue
        used.add(place)
        if derived is not None and derived["path"] is not None:
            # names as the raw data have them (versions of fMRIPrep drop zeros of runs), and the repetition time that was
            # decided for them
            same = {name: scan[name] for name in ("key", "run", "input", "synthetic")}
            same["tr_s"] = scan["tr_s"] or derived["tr_s"]
            same["notes"] = list(
                dict.fromkeys([*(scan["notes"] or ()), *(derived["notes"] or ()), *noted_here])
            )
            yield {**derived, **same}
            continue
        reason = excluded.get(Path(scan["path"]).name) or (derived or {}).get("reason")
        if reason is None and scan["modality"] == "t1w":
            reason = (
                "preprocessing made no volume of its own of it: it may be merged with others of this subject"
            )
        if space in SURFACES and scan["modality"] == "bold":
            reason = next((n for n in noted_here if notes.kind_of(n) == notes.Kind.SURFACES), reason)
        yield {
            **scan,
            "status": "excluded",
            "reason": reason or f"preprocessing made no output in space {space}",
        }
    # fMRIPrep merges the T1 images of a subject into one without session: a scan that no raw file is the name of
    raw_t1w = {scan["subject"]: scan for scan in raw if scan["modality"] == "t1w"}
    for place, row in by_key.items():
        origin = raw_t1w.get(row["subject"])
        if (
            place[0] == "t1w"
            and place not in used
            and row["path"]
            and origin
            and not statuses[row["subject"]][0]
        ):
            yield {**row, "input": origin["input"], "synthetic": origin["synthetic"]}


def _status(path: Path) -> tuple[str | None, dict[str, str], dict[str, list[str]]]:
    """Why the preprocessing of a subject failed, if it did; reasons and notes of single scans by file name."""
    try:
        status = json.loads(path.read_text(encoding="utf-8"))
        if status["status"] == "ok":
            reasons = {Path(scan["file"]).name: scan["reason"] for scan in status.get("excluded", ())}
            noted: dict[str, list[str]] = {}
            for scan in status.get("notes", ()):
                noted.setdefault(Path(scan["file"]).name, []).append(scan["note"])
            return None, reasons, noted
        return f"preprocessing failed: {failure(status)} (log: {status['log']})", {}, {}
    except FileNotFoundError:
        return f"this subject was not preprocessed: there is no {path.name}", {}, {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{path.name} cannot be read ({error!r}): preprocess this subject again", {}, {}
