"""Extract features from derivatives: parcel series, T1 volumes and a QC row for every scan of one batch of subjects.

A scan that cannot be used (`DataError`) is a row with a reason, and the batch goes on. Anything else stops the job: an
atlas or a strategy that cannot be read, a full disk, and a bug of ours, with its traceback.

Examples
--------
::

    python -m bhx_prep.features.extract --cohort ward --batch 0 --subjects S.json --index .bhx/index/ward.parquet \
        --templates results/templates --features F.json --space MNI152NLin2009cAsym --out results/ward/features/batch-00000
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bhx_model.atomic_write import atomic_write
from bhx_model.command_line import json_file, run_command
from bhx_model.contract import canonical_json
from bhx_model.data import segments, timeseries, volumes
from bhx_model.errors import ConfigError, DataError, LimitError
from bhx_prep.atlas.atlas import Atlas, load_atlas
from bhx_prep.config.features import FeaturesSection
from bhx_prep.config.section import read_section
from bhx_prep.features import (
    confounds,
    denoise,
    fingerprint,
    gates,
    parcellate,
    qc,
    store,
    t1w,
    template_overlap,
)
from bhx_prep.features.parcel_means import Parcellated
from bhx_prep.features.scans import scans_of
from bhx_prep.features.table_columns import AS_GIVEN, QC_SCHEMA, SERIES_SCHEMA
from bhx_prep.features.timeseries import read_series
from bhx_prep.ingest import index
from bhx_prep.io import archives, bids_names, notes
from bhx_prep.io.stated_axes import StatedAxes
from bhx_prep.quality import limits
from bhx_prep.review import carpet, quality_file, scan_files
from bhx_prep.review.decided import Place, place_of

logger = logging.getLogger(__name__)

#: Note of every one of them.
NO_MOTION = notes.note(notes.Kind.NO_MOTION, "a table made elsewhere, no motion excludes it")
#: Beginning of the reason of a scan that somebody decided to exclude.
BY_DECISION = "excluded by a decision"
#: Note of every T1 where the templates hold no head.
NO_TEMPLATE = notes.note(notes.Kind.T1W, "not compared with the template, of which there is no head")

Row = dict[str, Any]


@dataclass(frozen=True)
class Extraction:
    """What all scans of a job share."""

    settings: FeaturesSection
    atlas: Atlas
    strategy: confounds.Strategy
    grid: t1w.ModelGrid
    stated: StatedAxes = field(default_factory=StatedAxes)
    head: tuple[Path, Path] | None = None
    decisions: Mapping[Place, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def prepare(
        cls,
        settings: FeaturesSection,
        templates: Path,
        tables: Any = None,
        space: str | None = None,
        decisions: Sequence[Mapping[str, str]] = (),
    ) -> Extraction:
        """Read the atlas and the strategy.

        Parameters
        ----------
        settings : FeaturesSection
        templates : Path
            Folder of the atlas.
        tables : JSON value, optional
            What the cohort states about tables without names, as `bhx_prep.ingest.stated_names` gives it.
        space : str, optional
            Standard space of the images, for an atlas with a volume in several.
        decisions : sequence of mappings
            What people decided of single scans: ``modality``, ``key``, ``decision`` and ``why``.

        Raises
        ------
        ConfigError
            If either cannot be used, or the T1 grid is larger than MNI space.
        """
        head = templates / "head_T1w.nii.gz", templates / "head_mask.nii.gz"
        if not all(path.exists() for path in head):
            logger.warning("%s holds no head: T1w volumes are not compared with the template", templates)
            head = None
        return cls(
            settings,
            load_atlas(templates, space),
            confounds.load_strategy(settings.strategy),
            t1w.model_grid(settings.t1w_resolution_mm, settings.t1w_shape),
            StatedAxes.of_json(tables),
            head,
            {place_of(decision): decision for decision in decisions},
        )

    def obey(self, report: Row, check: Callable[..., None], *numbers: Any) -> None:
        """Compare numbers with limits, which a decision to keep the scan overrules: the report then says which.

        Raises
        ------
        LimitError
            If a limit is failed and nobody decided to keep the scan.
        """
        try:
            check(*numbers, self.settings)
        except LimitError as error:
            if report["decision"] != "keep":
                raise
            report["overruled"] = "; ".join(filter(None, [report["overruled"], str(error)]))

    def bold(self, scan: Row, report: Row) -> tuple[Row, bytes]:
        """Series of one BOLD run as a row of `SERIES_SCHEMA` and as a shard carries it.

        Numbers go into `report` as soon as they are known.

        Raises
        ------
        DataError
            If the run cannot be used or fails a threshold.
        """
        if not scan["tr_s"]:
            raise DataError(
                "its repetition time is not known: give the cohort its `tr_s` in the configuration"
            )
        if scan["kind"] == "table":
            parcellated = self._given(scan, report)
            n_frames = parcellated.series.shape[1]
            done, joins = denoise.Denoised(parcellated.series, np.ones(n_frames, bool)), ()
            self._measure(parcellated, scan, report)
        else:
            parcellated, signals = self._measured(scan, report)
            done = denoise.denoise(parcellated.series, scan["tr_s"], self.strategy, signals)
            joins = signals.joins
        report["kept"], report["n_kept"] = done.kept, int(done.kept.sum())
        report["seconds"] = report["n_kept"] * scan["tr_s"]
        cuts = segments.of_kept(done.kept, joins)
        self.obey(report, qc.check_length, done.kept, cuts, scan["tr_s"])
        return {
            **{name: scan[name] for name in ("key", "subject", "session", "task", "run", "anat", "tr_s")},
            "n_frames": done.series.shape[1],
            "segments": cuts,
            "synthetic": bool(scan["synthetic"]),
            "series": done.series.ravel(),
            "coverage": parcellated.coverage,
            "fingerprint": fingerprint.fingerprint(done.series),
        }, timeseries.encode(done.series)

    def _judge(self, report: Row, numbers: gates.Numbers, modality: str) -> None:
        """Write numbers of quality into the report and compare them with their limits."""
        report.update(numbers)
        self.obey(report, lambda *_: limits.check(numbers, modality))

    def _compare_with_t1w(self, scan: Row, report: Row) -> None:
        """Check that a run in a volume is aligned with its T1w image, unless preprocessing did."""
        path, anat = Path(scan["path"]), scan.get("t1w_files")
        if anat is None or self.head is None or quality_file.numbers(path):
            return
        if path.name.endswith((".nii", ".nii.gz")) and scan_files.is_standard(path) and anat[0].is_file():
            self._judge(report, gates.of_bold((path, _path(scan["mask"])), anat, self.head), "bold")

    def _given(self, scan: Row, report: Row) -> Parcellated:
        report["strategy"] = AS_GIVEN
        given = read_series(Path(scan["path"]), self.atlas, self.stated, sidecar=_path(scan["sidecar"]))
        report["notes"] += [text for text in (*given.notes, NO_MOTION) if text not in report["notes"]]
        return given.parcellated

    def _measured(self, scan: Row, report: Row) -> tuple[Parcellated, confounds.Confounds]:
        """Parcellate an image and choose its confounds."""
        report["strategy"] = self.strategy.name
        parcellated = parcellate.parcellate_file(
            Path(scan["path"]),
            self.atlas,
            path_right=_path(scan["path_right"]),
            mask=_path(scan["mask"]),
            min_coverage=self.settings.min_coverage,
        )
        n_frames = parcellated.series.shape[1]
        report["n_frames"] = n_frames
        report["carpet"] = carpet.reduce(parcellated.series)
        table = _path(scan["confounds"])
        if table is None:
            signals = confounds.without_table(self.strategy, n_frames)
        else:
            signals = confounds.select(self.strategy, table, n_frames)
        report["notes"] += signals.notes
        report["fd_mm"] = signals.fd_mm
        report["mean_fd_mm"], report["max_fd_mm"] = qc.motion(signals.fd_counted_mm)
        self._measure(parcellated, scan, report)
        self._compare_with_t1w(scan, report)
        return parcellated, signals

    def _measure(self, parcellated: Parcellated, scan: Row, report: Row) -> None:
        """Fill in the numbers of a run and compare them with the thresholds."""
        report["tr_s"], report["n_frames"] = scan["tr_s"], parcellated.series.shape[1]
        report["mean_coverage"] = float(parcellated.coverage.mean(dtype=np.float64))
        report["n_rois_covered"] = qc.covered(parcellated.series)
        report["tsnr"] = qc.tsnr(parcellated.series)
        self.obey(report, qc.check_run, report["n_rois_covered"], self.atlas.n_rois, report["mean_fd_mm"])

    def t1w(self, scan: Row, report: Row) -> tuple[Row, bytes]:
        """Metadata of one T1 volume on the model's grid, and the volume as a shard carries it.

        Raises
        ------
        DataError
            If the volume cannot be used.
        """
        volume = t1w.conform(Path(scan["path"]), self.grid, _path(scan["mask"]))
        if self.head is not None:
            found = template_overlap.overlap(volume, *self.head, self.grid)
            report["template_dice"], report["template_correlation"] = found.dice, found.correlation
            self.obey(report, qc.check_template, found.dice, found.correlation)
            # else preprocessing judged it by the same limits
            if not quality_file.numbers(Path(scan["path"])):
                numbers = gates.of_t1w((Path(scan["path"]), _path(scan["mask"])), self.head)
                self._judge(report, numbers, "t1w")
        else:
            report["notes"].append(NO_TEMPLATE)
        content = volumes.encode(volume)
        report["sha256"] = hashlib.sha256(content).hexdigest()  # which shows what is there twice
        return {
            **{name: scan[name] for name in ("key", "subject", "session")},
            "shape": list(volume.shape),
            "zooms_mm": self.grid.zooms_mm,
            "affine": self.grid.affine.tolist(),
            "synthetic": bool(scan["synthetic"]),
        }, content


def extract(
    work: Extraction, scans: Iterable[Row], cohort: str, out: Path, *, n_subjects: int = 0
) -> tuple[int, int]:
    """Extract the features of a batch.

    Parameters
    ----------
    work : Extraction
    scans : iterable of dict
        Rows of the index, sorted as they shall be written.
    cohort : str
    out : Path
        Folder for ``timeseries.parquet``, ``bold.arrow``, ``t1w.arrow`` (for the shards, see `bhx_prep.features.store`),
        ``carpets.parquet`` (for pictures) and ``qc.parquet``, which appear together at the end.
    n_subjects : int
        For the progress lines.

    Returns
    -------
    tuple of int
        Scans used and scans excluded.

    Raises
    ------
    OSError
        If the disk is full.
    Exception
        Any other than a `DataError` of a scan: nothing is written then.
    """
    out.mkdir(parents=True, exist_ok=True)
    names = ("timeseries.parquet", "bold.arrow", "t1w.arrow", "carpets.parquet", "qc.parquet")
    reports = []
    subjects: dict[str, None] = {}
    met: set[Place] = set()
    metadata = _metadata(work)
    schema = SERIES_SCHEMA.with_metadata({b"bhx": canonical_json(metadata)})
    with contextlib.ExitStack() as whole:
        # the last that is opened appears first
        parts = {name: whole.enter_context(atomic_write(out / name)) for name in reversed(names)}
        with (
            pq.ParquetWriter(
                parts["timeseries.parquet"], schema, compression="none", use_dictionary=False
            ) as series,
            store.Writer(parts["bold.arrow"], "bold", metadata) as bold,
            store.Writer(parts["t1w.arrow"], "t1w", {}) as t1ws,
            pq.ParquetWriter(parts["carpets.parquet"], carpet.SCHEMA, compression="zstd") as carpets,
        ):
            for scan in _with_anatomy(scans):
                if scan["subject"] not in subjects:
                    subjects[scan["subject"]] = None
                    logger.info("%s: %s (%d of %d)", cohort, scan["subject"], len(subjects), n_subjects)
                report = _report_of(scan)
                met.add(place_of(scan))
                features = _one(work, scan, report)
                if (drawn := report.pop("carpet", None)) is not None:
                    carpets.write_table(pa.Table.from_pylist([carpet.row(scan["key"], drawn)], carpet.SCHEMA))
                reports.append(report)
                if features is None:
                    continue
                row, content = features
                if scan["modality"] == "bold":
                    series.write_table(pa.Table.from_pylist([row], schema))
                    bold.add(row, content)
                else:
                    t1ws.add(row, content)
        pq.write_table(pa.Table.from_pylist(reports, QC_SCHEMA), parts["qc.parquet"])
    for _, key in sorted(work.decisions.keys() - met):
        logger.warning("%s: a decision on %s changes nothing: preprocessing made no such scan", cohort, key)
    used = sum(report["status"] == "ok" for report in reports)
    return used, len(reports) - used


def _metadata(work: Extraction) -> dict[str, Any]:
    """What the files of series say of their rows."""
    return {
        "atlas": work.atlas.label,
        "names": list(work.atlas.names),
        "hemisphere": list(work.atlas.hemisphere),
        "roi_sha256": work.atlas.roi_sha256,
        "strategy": work.strategy.name,
        "shape_order": "roi,frame",
    }


def _report_of(scan: Row) -> Row:
    """Row of ``qc.parquet`` of a scan that nothing was found of yet."""
    report: Row = dict.fromkeys(QC_SCHEMA.names)
    report |= {name: scan[name] for name in ("cohort", "subject", "key", "modality", "synthetic")}
    report |= {"status": "ok", "tr_s": scan["tr_s"], "n_frames": scan["n_frames"]}
    report["notes"] = list(scan["notes"] or ())
    return report


def _with_anatomy(scans: Iterable[Row]) -> list[Row]:
    """The same rows; runs get the files of their T1w image in standard space, if it has any."""
    rows = list(scans)
    anats = {
        row["key"]: (Path(row["path"]), _path(row["mask"]))
        for row in rows
        if row["modality"] == "t1w" and row["status"] == "ok" and row["path"]
    }
    return [
        {**row, "t1w_files": anats.get(row["anat"])} if row["modality"] == "bold" else row for row in rows
    ]


def _one(work: Extraction, scan: Row, report: Row) -> Any:
    """Features of a scan, or None after the reason was written into its report."""
    decision = work.decisions.get(place_of(scan))
    report["decision"] = decision and decision["decision"]
    reasons = []
    features = None
    if decision and decision["decision"] == "exclude":
        reasons.append(f"{BY_DECISION}: {decision['why']}")
    try:
        if scan["status"] != "ok":
            raise DataError(scan["reason"] or "excluded by the index")
        if report["decision"] == "keep" and (failed := quality_file.failed(Path(scan["path"]))):
            report["overruled"] = f"preprocessing found that it fails {', '.join(failed)}"
        with archives.unpacked(scan, index.FILE_COLUMNS) as files:  # of an excluded one for its numbers
            features = work.bold(files, report) if scan["modality"] == "bold" else work.t1w(files, report)
    except DataError as error:
        reasons.append(str(error))
        if report["decision"] == "keep":
            reasons.append("it cannot be kept, as was decided")
    if reasons:
        report["status"], report["reason"] = "excluded", "; ".join(reasons)
        return None
    if decision and report["overruled"]:
        detail = f"{decision['why']}; else it were excluded: {report['overruled']}"
        report["notes"].append(notes.note(notes.Kind.DECISION, detail))
    return features


def _path(value: str | None) -> Path | None:
    return Path(value) if value else None


def _subjects(args: argparse.Namespace) -> list[str]:
    subjects = args.subjects
    if (
        not isinstance(subjects, list)
        or not all(isinstance(label, str) for label in subjects)
        or not subjects
    ):
        raise ConfigError('--subjects: expected a JSON list of labels, e.g. ["01", "02"]')
    for label in subjects:
        bids_names.check_label(label, "subject")
    return sorted(set(subjects))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one batch; 0 if its five files were written, 1 with a sentence otherwise."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_prep.features.extract",
        description="Extract parcel series, T1 volumes and QC rows of a batch of subjects.",
        epilog="example: python -m bhx_prep.features.extract --cohort ward --batch 0 --subjects S.json --index"
        " .bhx/index/ward.parquet --templates results/templates --features F.json"
        " --space MNI152NLin2009cAsym --out results/ward/features/batch-00000",
    )
    parser.add_argument("--cohort", required=True, help="name of the cohort")
    parser.add_argument("--batch", required=True, type=int, help="number of the batch, for messages")
    parser.add_argument(
        "--subjects", required=True, type=json_file, metavar="FILE", help="JSON list of labels without sub-"
    )
    parser.add_argument("--index", required=True, type=Path, help="Parquet index of the cohort")
    parser.add_argument("--derivatives", type=Path, help="what preprocessing wrote (input bids)")
    parser.add_argument("--templates", required=True, type=Path, help="folder of bhx_prep.atlas.fetch")
    parser.add_argument(
        "--features", required=True, type=json_file, metavar="FILE", help="section `features` as a JSON file"
    )
    parser.add_argument(
        "--tables",
        type=json_file,
        metavar="FILE",
        help="axes and names of tables without names, as a JSON file",
    )
    parser.add_argument("--space", required=True, help="space of the BOLD derivatives")
    parser.add_argument(
        "--decisions",
        type=json_file,
        default=[],
        metavar="FILE",
        help="decisions on scans of the batch: a JSON list of {modality, key, decision, why}",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder for the five files")
    args = parser.parse_args(argv)
    return run_command(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    subjects = _subjects(args)
    settings = read_section(FeaturesSection, args.features)
    work = Extraction.prepare(settings, args.templates, args.tables, args.space, args.decisions)
    scans = scans_of(
        args.index,
        args.cohort,
        subjects,
        derivatives=args.derivatives,
        space=args.space,
        t1w_mm=work.settings.t1w_resolution_mm,
    )
    used, excluded = extract(work, scans, args.cohort, args.out, n_subjects=len(subjects))
    logger.info("%s, batch %d: %d scans used, %d excluded", args.cohort, args.batch, used, excluded)


if __name__ == "__main__":
    sys.exit(main())
