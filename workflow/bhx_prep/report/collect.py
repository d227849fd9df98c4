"""Read a study's results for the report: every part may be missing, and no subject can be identified.

The page shows counts, distributions and examples. Subject labels, paths and all else that could identify a subject
are dropped here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bhx_model.errors import DataError
from bhx_prep.config.config import Config
from bhx_prep.io import notes
from bhx_prep.report import demographics

#: Runs of a cohort that its mean connectivity and coverage are taken over, at most.
MAX_RUNS = 100

#: Steps that may exclude a scan, in their order, and how the page calls them.
STAGES = {
    "index": "indexing",
    "preproc": "preprocessing",
    "features": "quality control",
}


Row = dict[str, Any]


@dataclass(frozen=True)
class Count:
    """Subjects and scans."""

    subjects: int
    bold: int
    t1w: int

    @classmethod
    def of(cls, scans: Iterable[Row]) -> Count:
        """Count the rows of an index."""
        scans = list(scans)
        modality = [scan["modality"] for scan in scans]
        subjects = {scan["subject"] for scan in scans}
        return cls(len(subjects), modality.count("bold"), modality.count("t1w"))

    @property
    def scans(self) -> int:
        """BOLD runs and T1 images together."""
        return self.bold + self.t1w


@dataclass(frozen=True)
class Exclusion:
    """One reason for which scans are excluded."""

    stage: str
    reason: str
    count: Count


@dataclass(frozen=True)
class Assumption:
    """A kind of note that included scans carry: its most frequent wording, and how many there are; of a cohort: None."""

    kind: str
    example: str
    count: Count | None


@dataclass(frozen=True)
class Preprocessing:
    """How the preprocessing jobs of a cohort ended."""

    ok: int
    failed: int
    median_seconds: float | None
    versions: dict[str, str]


@dataclass(frozen=True)
class Example:
    """One run that is shown as a carpet plot."""

    series: np.ndarray
    names: list[str]
    tr_s: float
    fd_mm: np.ndarray | None


@dataclass(frozen=True)
class Trace:
    """Framewise displacement of one run."""

    fd_mm: np.ndarray
    tr_s: float
    included: bool


@dataclass
class CohortSummary:
    """What the page shows of one cohort; empty where a step has not run."""

    name: str
    input: str
    synthetic: bool
    found: Count | None = None
    exclusions: list[Exclusion] = field(default_factory=list)
    assumptions: list[Assumption] = field(default_factory=list)
    included: Count | None = None
    subjects: list[demographics.Group] = field(default_factory=list)
    pending: Count | None = None
    tr_s: list[float] = field(default_factory=list)
    preprocessing: Preprocessing | None = None
    quality: list[Row] = field(default_factory=list)
    traces: dict[str, Trace] = field(default_factory=dict)
    example: Example | None = None
    names: list[str] = field(default_factory=list)
    coverage: np.ndarray | None = None
    connectivity: np.ndarray | None = None
    n_runs_averaged: int = 0
    scans_page: str | None = None
    """Address of the page of its scans, from that of the study."""


@dataclass(frozen=True)
class StageSummary:
    """One training stage of an experiment: losses by step, and the metadata of its ``run.json`` where there is one.

    `baseline` is the loss of predicting the mean on the held-out subjects; `connectivity` that of predicting a run's
    connectivity from a part of it, on the same subjects, and that of predicting its mean, where a stage does so.
    """

    stage: str
    losses: dict[str, tuple[np.ndarray, np.ndarray]]
    baseline: float | None
    connectivity: tuple[float, float] | None
    subjects: int | None
    samples: int | None
    parameters: int | None
    seconds: float | None
    device: str | None
    share_of_start: float | None
    """Of its random start, what the target encoder of the function stage keeps by its schedule."""


# ------------------------------------------------------------------------------------------- cohorts


def summarise(config: Config, results: Path, name: str) -> CohortSummary:
    """Gather everything that the page shows of one cohort.

    Raises
    ------
    DataError
        If a file is there and cannot be read.
    """
    section = config.cohorts[name]
    out = CohortSummary(name=name, input=section.input, synthetic=section.synthetic)
    folder = results / name
    if not (folder / "index.parquet").exists():
        return out
    columns = ["subject", "modality", "key", "tr_s", "synthetic", "status", "reason", "notes"]
    there = _open(folder / "index.parquet").schema_arrow.names  # an earlier version has no notes
    columns = [name for name in columns if name in there]
    index = read_table(folder / "index.parquet", columns=columns).to_pylist()
    declared = [row["synthetic"] for row in index if row["synthetic"] is not None]
    out.synthetic = all(declared) if declared else section.synthetic
    out.found = Count.of(index)
    statuses = [json_if_whole(path) or {} for path in sorted((folder / "preproc").glob("sub-*_status.json"))]
    out.preprocessing = _preprocessing(statuses)
    batches = sorted((folder / "features").glob("batch-*"))
    checked = [row for batch in batches for row in _quality(batch)]
    included = _flow(out, index, statuses, checked)
    of_cohort = (json_if_whole(folder / "check.json") or {}).get("notes") or ()
    subjects = {str(row["subject"]) for row in index}
    out.subjects = demographics.of_cohort(section, subjects, included, synthetic=out.synthetic)
    for note in of_cohort:
        detail = anonymous(note.partition(": ")[2], subjects)
        out.assumptions.append(Assumption(notes.kind_of(note), detail, None))
    out.quality = [row for row in checked if row["modality"] == "bold"]
    out.traces = _traces(out.quality)
    _series(out, batches)
    if (folder / "qc" / "index.html").exists():
        out.scans_page = f"../{name}/qc/index.html"
    return out


def _preprocessing(statuses: Sequence[dict[str, Any]]) -> Preprocessing | None:
    if not statuses:
        return None
    ok = [s for s in statuses if s.get("status") == "ok"]
    seconds = [float(s["seconds"]) for s in ok if s.get("seconds") is not None]
    versions = {str(k): str(v) for s in statuses for k, v in (s.get("versions") or {}).items()}
    return Preprocessing(
        ok=len(ok),
        failed=len(statuses) - len(ok),
        median_seconds=float(np.median(seconds)) if seconds else None,
        versions=dict(sorted(versions.items())),
    )


def known(rows: Iterable[Row], column: str) -> list[float]:
    """Numbers of a column, without those that are absent."""
    values = (row.get(column) for row in rows)
    return [float(v) for v in values if v is not None and math.isfinite(v)]


def _quality(batch: Path) -> list[Row]:
    """Rows of a batch's ``qc.parquet`` without the traces, which are read for the runs that are shown."""
    file = batch / "qc.parquet"
    if not file.exists():
        return []
    columns = [c for c in _open(file).schema_arrow.names if c != "fd_mm"]
    return [{**row, "batch": batch} for row in read_table(file, columns=columns).to_pylist()]


def _flow(
    out: CohortSummary, index: Sequence[Row], statuses: Sequence[Row], checked: Sequence[Row]
) -> set[str]:
    """Count the scans of the index that are included, pending, or excluded, by step and reason; returns who is included."""
    failed = {str(s.get("subject")): s.get("reason") for s in statuses if s.get("status") != "ok"}
    quality = {row["key"]: row for row in checked}
    scans: dict[str, list[tuple[Row, str | None]]] = {to: [] for to in ("included", "pending", *STAGES)}
    for row in index:
        key, subject = row["key"], row["subject"]
        if row["status"] != "ok":
            scans["index"].append((row, row["reason"]))
        elif subject in failed:
            scans["preproc"].append((row, failed[subject]))
        elif key not in quality:
            scans["pending"].append((row, None))
        elif quality[key]["status"] != "ok":
            scans["features"].append((row, quality[key]["reason"]))
        else:
            scans["included"].append((row, None))
    out.included = Count.of(row for row, _ in scans["included"])
    out.pending = Count.of(row for row, _ in scans["pending"]) if scans["pending"] else None
    out.tr_s = sorted({round(t, 3) for t in known((r for r in index if r["status"] == "ok"), "tr_s")})
    subjects = {str(row["subject"]) for row in index}
    for stage in STAGES:
        reasons = [anonymous(reason or "no reason was given", subjects) for _, reason in scans[stage]]
        for reason, positions in grouped(reasons):
            count = Count.of(scans[stage][p][0] for p in positions)
            out.exclusions.append(Exclusion(stage, reason, count))
    _assumptions(
        out, [quality.get(row["key"], row) for row, _ in scans["included"] + scans["pending"]], subjects
    )
    return {str(row["subject"]) for row, _ in scans["included"]}


def _assumptions(out: CohortSummary, rows: Sequence[Row], subjects: Collection[str]) -> None:
    """Count the notes of the scans that are used, by kind."""
    by_kind: dict[str, list[tuple[Row, str]]] = {}
    for row in rows:
        for note in row.get("notes") or ():
            by_kind.setdefault(notes.kind_of(note), []).append((row, note))
    for kind, found in by_kind.items():
        details = [anonymous(note.partition(": ")[2], subjects) for _, note in found]
        scans = {row["key"]: row for row, _ in found}
        out.assumptions.append(Assumption(kind, grouped(details)[0][0], Count.of(scans.values())))
    out.assumptions.sort(key=lambda a: (-a.count.scans if a.count else 1, a.kind))


_PATH = re.compile(r"(?<![\w<])(?:~?/(?:[\w.+@-]+/)+|(?:[\w.+@-]+/){2,})([\w.+@-]*)")
_LABELLED = re.compile(r"(?<![A-Za-z0-9])((?:sub|ses)-)[A-Za-z0-9+]+")
_WORD = re.compile(r"[A-Za-z0-9+]+")
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")


def anonymous(sentence: str, subjects: Collection[str]) -> str:
    """Return a sentence without folders and subject labels.

    Parameters
    ----------
    sentence : str
    subjects : collection of str
        Labels of the cohort's subjects, without ``sub-``; a set where they are many.
    """
    sentence = _PATH.sub(lambda m: m[1] or "a folder", sentence)
    sentence = _LABELLED.sub(r"\1*", sentence)

    def without_label(word: str) -> str:
        if word in subjects and (not word.isdigit() or len(word) > 2):  # "01" is also a number
            return "*"
        return "+".join(map(without_label, word.split("+"))) if "+" in word else word

    return _WORD.sub(lambda m: without_label(m[0]), sentence)


def grouped(sentences: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Group sentences that differ in numbers alone; a number that differs becomes an ellipsis.

    Returns
    -------
    list of (sentence, positions)
        The most frequent first.
    """
    groups: dict[str, list[int]] = {}
    for position, sentence in enumerate(sentences):
        groups.setdefault(_NUMBER.sub("#", sentence), []).append(position)
    out = []
    for positions in groups.values():
        numbers = [_NUMBER.findall(sentences[p]) for p in positions]
        shown = iter([a if all(n[i] == a for n in numbers) else "\u2026" for i, a in enumerate(numbers[0])])
        out.append((_NUMBER.sub(lambda _, shown=shown: next(shown), sentences[positions[0]]), positions))
    return sorted(out, key=lambda group: (-len(group[1]), group[0]))


def _by_motion(runs: Iterable[Row]) -> list[Row]:
    """Runs whose motion is known, the one with the lowest mean first."""
    measured = [row for row in runs if known([row], "mean_fd_mm")]
    return sorted(measured, key=lambda row: (row["mean_fd_mm"], row["key"]))


def typical_runs(runs: Iterable[Row], most: int) -> list[Row]:
    """Included runs of about median motion, the nearest to it first; by key where no motion is known."""
    included = [row for row in runs if row["status"] == "ok"]
    measured = _by_motion(included) or sorted(included, key=lambda row: row["key"])
    middle = (len(measured) - 1) // 2 if known(measured, "mean_fd_mm") else 0
    order = sorted(range(len(measured)), key=lambda i: (abs(i - middle), i))
    return [measured[i] for i in order[:most]]


def _traces(runs: Sequence[Row]) -> dict[str, Trace]:
    """Displacement of the run with the median and of the run with the highest mean."""
    measured = _by_motion(runs)
    if not measured:
        return {}
    traces = {}
    for name, row in {"median": measured[(len(measured) - 1) // 2], "highest": measured[-1]}.items():
        fd = _trace(row)
        if fd is not None:
            traces[name] = Trace(fd, float(row["tr_s"]), row["status"] == "ok")
    return traces


def _trace(row: Row) -> np.ndarray | None:
    file = row["batch"] / "qc.parquet"
    if "fd_mm" not in _open(file).schema_arrow.names:
        return None
    values = read_table(file, columns=["fd_mm"], filters=[("key", "=", row["key"])])["fd_mm"].to_pylist()
    if not values or not values[0]:
        return None
    trace = np.array([math.nan if v is None else v for v in values[0]], dtype=float)
    return trace if np.isfinite(trace).any() else None


def _series(out: CohortSummary, batches: Sequence[Path]) -> None:
    """Example run, mean coverage and mean connectivity of a cohort."""
    found = typical_runs(out.quality, 1)
    if not found:
        return
    typical = found[0]
    coverage: list[np.ndarray] = []
    z_sum, z_n = np.zeros(()), np.zeros(())
    for batch in batches:
        file = batch / "timeseries.parquet"
        if not file.exists():
            continue
        parquet = _open(file)
        metadata = json.loads((parquet.schema_arrow.metadata or {}).get(b"bhx", b"{}"))
        if not metadata.get("names"):
            continue
        out.names = out.names or metadata["names"]
        for chunk in parquet.iter_batches(batch_size=8, columns=["key", "tr_s", "series", "coverage"]):
            for key, tr, series, covered in zip(*chunk.columns, strict=True):
                wanted = key.as_py() == typical["key"]
                counts = out.n_runs_averaged < MAX_RUNS
                if not (wanted or counts):
                    continue
                array = np.asarray(series.values, dtype=float).reshape(len(out.names), -1)
                if wanted:
                    out.example = Example(array, out.names, tr.as_py(), _trace(typical))
                if counts:
                    out.n_runs_averaged += 1
                    coverage.append(np.asarray(covered.values, dtype=float))
                    z = correlations(array)
                    z_sum, z_n = z_sum + np.nan_to_num(z), z_n + np.isfinite(z)
        if out.n_runs_averaged >= MAX_RUNS and out.example is not None:
            break
    if coverage:
        with np.errstate(invalid="ignore", divide="ignore"):
            out.connectivity = np.tanh(z_sum / z_n)
        out.coverage = np.mean(coverage, axis=0)


def correlations(series: np.ndarray) -> np.ndarray:
    """Fisher-z correlations (R, R) of series (R, T); NaN where a row is constant or has NaN, and on the diagonal."""
    centred = series - series.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = np.where(norm > 0, centred / norm, np.nan)
    matrix = np.clip(unit @ unit.T, -0.999999, 0.999999)
    np.fill_diagonal(matrix, np.nan)
    return np.arctanh(matrix)


# --------------------------------------------------------------------------- templates and experiments


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from error


def read_table(path: Path, **selection: Any) -> pa.Table:
    """Read a Parquet table, or a selection of it.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    try:
        return pq.read_table(path, **selection)
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    first = str(error).partition("\n")[0]  # Arrow adds the whole schema
    return DataError(f"cannot read {path} as Parquet ({first}): run the step that makes it again")


def json_if_whole(path: Path) -> Any:
    """Content of a JSON file, None if it is absent or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return None


def per_roi(path: Path, prefix: str) -> tuple[list[str], np.ndarray, dict[str, Any]] | None:
    """Names (R), columns whose name begins with `prefix` (R, N), and metadata of a per-ROI Parquet; None if absent."""
    if not path.exists():
        return None
    table = read_table(path)
    columns = [c for c in table.column_names if c.startswith(prefix)]
    values = (
        np.column_stack([table[c].to_numpy() for c in columns]) if columns else np.empty((table.num_rows, 0))
    )
    metadata = json.loads((table.schema.metadata or {}).get(b"bhx", b"{}"))
    return table["name"].to_pylist(), values.astype(float), metadata


def stage_summary(folder: Path) -> StageSummary | None:
    """Losses and metadata of one training stage; None if it has not run."""
    if not (folder / "metrics.jsonl").exists():
        return None
    courses: dict[str, list[tuple[float, float]]] = {}
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # the last line of a run that was killed
            continue
        for name, value in row.items():
            if "loss" in name and isinstance(value, int | float) and math.isfinite(value) and "step" in row:
                courses.setdefault(name, []).append((float(row["step"]), float(value)))
    losses = {}
    for name in sorted(courses, key=lambda n: (len(n), n)):
        steps, values = np.array(courses[name]).T
        losses[name] = (steps, values)
    run = json_if_whole(folder / "run.json") or {}
    counts, machine, loss = run.get("counts") or {}, run.get("machine") or {}, run.get("loss") or {}
    names = ("connectivity", "connectivity_mean_predictor")
    connectivity = tuple(float(loss[name]) for name in names if loss.get(name) is not None)
    return StageSummary(
        stage=folder.name,
        losses=losses,
        baseline=loss.get("mean_predictor"),
        connectivity=connectivity if len(connectivity) == 2 else None,
        subjects=counts.get("train_subjects"),
        samples=counts.get("samples_seen"),
        parameters=counts.get("parameters"),
        seconds=run.get("seconds"),
        device=machine.get("device"),
        share_of_start=(run.get("target") or {}).get("share_of_start"),
    )
