"""Draw the scans of a batch of subjects, and collect their measures: one job per batch.

Examples
--------
::

    python -m bhx_prep.review.draw --cohort ward --subjects S.json --index .bhx/index/ward.parquet \
        --space MNI152NLin2009cAsym --features results/ward/features/batch-00000 --templates results/templates \
        --out results/ward/qc/batch-00000
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bhx_model.atomic_write import atomic_write
from bhx_model.command_line import json_file, run_command
from bhx_model.errors import DataError
from bhx_prep.features import confounds_table
from bhx_prep.features.scans import scans_of
from bhx_prep.ingest import index
from bhx_prep.io import archives
from bhx_prep.review import bundle, carpet, drawings, numbers, quality_file, scan_files
from bhx_prep.review.drawings import Brain, Template

logger = logging.getLogger(__name__)

Row = dict[str, Any]


@dataclass
class Batch:
    """What the scans of a batch share.

    Attributes
    ----------
    scans : list of dict
        Rows of `bhx_prep.features.scans.scans_of`.
    checked : dict
        Modality and sample key to the row of the features' ``qc.parquet``.
    carpets : dict
        Sample key to a row of `carpet.SCHEMA`.
    templates : Path
        Folder with ``head_T1w.nii.gz`` and ``head_mask.nii.gz``.
    derivatives : Path, optional
        Of raw scans: a scan that preprocessing excluded has no image there, and its numbers.
    numbers : list of dict
        Filled while pictures are drawn: `key`, `modality`, and what is known of a scan.
    thumbnails : list of Picture
        Filled while pictures are drawn: one of each scan that has an image.
    """

    scans: list[Row]
    checked: Mapping[tuple[str, str], Row]
    carpets: Mapping[str, Row]
    templates: Path
    derivatives: Path | None = None
    numbers: list[Row] = field(default_factory=list)
    thumbnails: list[bundle.Picture] = field(default_factory=list)

    @cached_property
    def template(self) -> Template:
        """The head that everything is compared with.

        Raises
        ------
        SiteError
            If it cannot be read.
        """
        return scan_files.template(self.templates)

    @cached_property
    def _anats(self) -> dict[str, Row]:
        return {row["key"]: row for row in self.scans if row["modality"] == "t1w" and row["path"]}

    def pictures(self) -> Iterator[bundle.Picture]:
        """Pictures of all scans; of an image that cannot be drawn there is none, and a warning says why."""
        for scan in self.scans:
            known: Row = {"key": scan["key"], "modality": scan["modality"]}
            self.numbers.append(known)
            if not scan["path"]:
                continue
            with archives.unpacked(scan, index.FILE_COLUMNS) as files:
                known |= quality_file.numbers(self._output(files)) | known
                drawn = self._bold(files, known) if scan["modality"] == "bold" else self._t1w(files)
                try:
                    for kind, picture in drawn:
                        yield scan["key"], scan["modality"], kind, picture
                except DataError as error:
                    logger.warning("%s %s is not drawn: %s", scan["key"], scan["modality"], error)

    def _output(self, scan: Row) -> Path:
        path = Path(scan["path"])
        if scan["kind"] != "raw" or self.derivatives is None:
            return path
        return quality_file.place_of_output(path, self.derivatives)

    def _t1w(self, scan: Row) -> Iterator[tuple[str, str]]:
        path = Path(scan["path"])
        if scan["kind"] == "raw" or not scan_files.is_standard(path):
            return
        brain, title = scan_files.t1w(path, _path(scan["mask"])), f"{scan['key']} T1w"
        self._add_thumbnail(scan, brain, title)
        yield "mask", drawings.mask(brain, self.template, title)
        yield "normalisation", drawings.normalisation(brain, self.template, title)

    def _bold(self, scan: Row, known: Row) -> Iterator[tuple[str, str]]:
        if scan["kind"] == "raw":  # preprocessing made nothing of it
            return
        checked = self.checked.get(("bold", scan["key"]), {})
        table = _confounds(scan)
        known |= numbers.of_run(table, checked.get("fd_mm"), checked.get("kept"))
        title = f"{scan['key']} BOLD"
        if (record := self.carpets.get(scan["key"])) is not None:
            yield "carpet", self._carpet(record, checked, table, title)
        brain = scan_files.bold_reference(Path(scan["path"]), _path(scan["mask"]))
        if brain is None:
            return
        self._add_thumbnail(scan, brain, title)
        yield "mask", drawings.mask(brain, self.template, title)
        yield "normalisation", drawings.normalisation(brain, self.template, title)
        anat = self._anats.get(scan["anat"])
        if anat is not None and anat["kind"] != "raw" and scan_files.is_standard(Path(anat["path"])):
            yield "coregistration", self._coregistration(brain, anat, title)

    def _add_thumbnail(self, scan: Row, brain: Brain, title: str) -> None:
        small = drawings.thumbnail(brain, self.template, title)
        self.thumbnails.append((scan["key"], scan["modality"], "thumbnail", small))

    def _coregistration(self, brain: Brain, anat: Row, title: str) -> str:
        path = Path(anat["path"])
        t1w = scan_files.t1w(path, _path(anat["mask"]))
        return drawings.coregistration(brain, t1w, scan_files.white_matter(path), self.template, title)

    def _carpet(self, record: Row, checked: Row, table: pd.DataFrame | None, title: str) -> str:
        rows = carpet.image(record)
        fd, kept, n_frames = checked.get("fd_mm"), checked.get("kept"), rows.shape[1]
        dvars = None
        if table is not None and len(table) == n_frames:
            name = next((n for n in ("std_dvars", "dvars") if n in table), None)
            dvars = table[name].to_numpy(np.float64) if name else None
        return drawings.carpet(
            rows,
            checked.get("tr_s") or 1.0,
            np.array(fd, np.float64) if fd and len(fd) == n_frames else None,
            dvars,
            np.array(kept, bool) if kept and len(kept) == n_frames else None,
            title,
        )


def _confounds(scan: Row) -> pd.DataFrame | None:
    """A run's table of confounds; None where it has none that can be read, which its row says."""
    if not scan["confounds"]:
        return None
    try:
        return confounds_table.read_table(Path(scan["confounds"]))[0]
    except DataError:
        return None


def _path(value: str | None) -> Path | None:
    return Path(value) if value else None


def draw(batch: Batch, out: Path) -> int:
    """Write a batch; returns the number of pictures.

    ``<out>.js`` has the pictures, ``<out>.small.js`` a thumbnail of each scan, ``<out>.parquet`` the numbers.
    """
    n = bundle.write(out.with_suffix(".js"), batch.pictures())
    bundle.write(out.with_suffix(".small.js"), batch.thumbnails)
    names = {name for row in batch.numbers for name in row} - {"key", "modality"}
    kinds = [
        ("key", pa.string()),
        ("modality", pa.string()),
        *((name, pa.float64()) for name in sorted(names)),
    ]
    schema = pa.schema(kinds)
    with atomic_write(out.with_suffix(".parquet")) as part:
        pq.write_table(pa.Table.from_pylist(batch.numbers, schema), part)
    return n


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the rule ``draw_scans``."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_prep.review.draw",
        description="Draw the scans of a batch of subjects.",
        epilog="example: python -m bhx_prep.review.draw --cohort ward --subjects S.json --index .bhx/index/ward.parquet"
        " --space MNI152NLin2009cAsym --features results/ward/features/batch-00000 --templates results/templates"
        " --out results/ward/qc/batch-00000",
    )
    parser.add_argument("--cohort", required=True, help="name of the cohort")
    parser.add_argument(
        "--subjects", required=True, type=json_file, metavar="FILE", help="JSON list of labels without sub-"
    )
    parser.add_argument("--index", required=True, type=Path, help="Parquet index of the cohort")
    parser.add_argument("--derivatives", type=Path, help="what preprocessing wrote (input bids)")
    parser.add_argument("--space", required=True, help="space of the BOLD derivatives")
    parser.add_argument("--t1w-mm", type=float, default=1.0, help="voxel size (mm) of the model's T1 grid")
    parser.add_argument("--features", required=True, type=Path, help="folder of the batch's features")
    parser.add_argument("--templates", required=True, type=Path, help="folder of bhx_prep.atlas.fetch")
    parser.add_argument("--out", required=True, type=Path, help="the three files, without their suffixes")
    args = parser.parse_args(argv)
    return run_command(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    scans = scans_of(
        args.index,
        args.cohort,
        args.subjects,
        derivatives=args.derivatives,
        space=args.space,
        t1w_mm=args.t1w_mm,
    )
    checked = pq.read_table(args.features / "qc.parquet").to_pylist()
    carpets = pq.read_table(args.features / "carpets.parquet").to_pylist()
    batch = Batch(
        scans,
        {(row["modality"], row["key"]): row for row in checked},
        {row["key"]: row for row in carpets},
        args.templates,
        args.derivatives,
    )
    n = draw(batch, args.out)
    logger.info("%s: %d pictures of %d scans", args.cohort, n, len(scans))


if __name__ == "__main__":
    sys.exit(main())
