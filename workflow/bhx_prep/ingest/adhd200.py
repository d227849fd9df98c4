"""ADHD-200: raw data of the sites, and ROI x time tables of the Athena pipeline.

Raw data (``input: bids``), a BIDS dataset per site, see `bhx_prep.ingest.site_folders`; `bhx fetch` leaves them as in
the bucket ``fcp-indi`` below ``data/Projects/ADHD200/RawDataBIDS``::

    NYU_phenotypic.csv             ScanDir ID (10001), DX (0 control, 1 to 3 ADHD, pending), -999 for unknown
    NYU/                           or Brown, KKI, NeuroIMAGE, OHSU, Peking_1, Peking_2, Peking_3, Pittsburgh, WashU
      participants.tsv
      T1w.json
      sub-0010001/ses-1/
        anat/sub-0010001_ses-1_run-1_T1w.nii.gz
        func/sub-0010001_ses-1_task-rest_run-1_bold.nii.gz     WashU: tasks reststudy1, reststudy2, reststudy3

ROI tables (``input: timeseries``) of the Athena pipeline, ``ADHD200_CC200_TCs_filtfix.tar.gz`` of NITRC, unpacked::

    NYU/
      NYU_phenotypic.csv
      0010001/
        sfnwmrda0010001_session_1_rest_1_cc200_TCs.1D     band-pass filtered: taken
        snwmrda0010001_session_1_rest_1_cc200_TCs.1D      not filtered: `series: '**/snwmrda*'` takes it
                                   columns File, Sub-brick, Mean_1, .., Mean_190; a line per frame

They state no repetition time. It is that of the site's raw scans, noted for every run; the site is the folder's, or
else that of the column ``Site`` of a table of phenotypes in the root (``*phenotypic*.csv`` or ``.tsv``).

Documented at fcon_1000.projects.nitrc.org/indi/adhd200 and www.nitrc.org/plugins/mwiki/index.php/neurobureau:AthenaPipeline.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Final

from bhx_prep.config import recipes
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.ingest import roi_tables, site_folders
from bhx_prep.ingest.fcp_indi import Offer
from bhx_prep.ingest.layouts import Layout, Listing, Places
from bhx_prep.ingest.rows import Row

_ATHENA = (
    "the Athena pipeline's tables need a free account: load ADHD200_CC{}_TCs_filtfix.tar.gz from "
    "nitrc.org/frs/?group_id=383, unpack it, and use `input: timeseries, layout: adhd200`"
)

#: What ``bhx fetch`` knows of it.
OFFERS: Final = {
    "adhd200": Offer(
        raw="data/Projects/ADHD200/RawDataBIDS",
        elsewhere={"rois_cc200": _ATHENA.format(200), "rois_cc400": _ATHENA.format(400)},
    ),
}

_FILE = re.compile(r"sf?nwmrda(?P<id>\d{7})_session_(?P<ses>\d+)_rest_(?P<run>\d+)_\w+_TCs\.1D(\.gz)?")


def tables(root: Path) -> Mapping[str, Places]:
    """ROI tables by subject, wherever they are below the root."""
    return roi_tables.by_subject(root, _FILE)


def table_rows(start: Row, root: Path, places: Places, cohort: CohortSection, t1w_mm: float) -> Iterator[Row]:
    """A row per run; of its filtered and its unfiltered table the filtered one is read."""
    runs: dict[tuple[str, str], list[str]] = defaultdict(list)
    for place in places:
        match = _FILE.fullmatch(PurePosixPath(place).name)
        assert match is not None, "as `tables` found them"
        runs[match["ses"], match["run"]].append(place)
    times = recipes.times("adhd200")
    site = next((part for part in PurePosixPath(places[0]).parts if part in times.sites), None)
    site = site or _sites(root).get(start["subject"])
    known = times.of(start["subject"], site)
    for (session, run), theirs in sorted(runs.items()):
        named = {"ses": session, "task": "rest", "run": run}
        time = roi_tables.SiteTime(known, site)
        yield roi_tables.row(start, root, theirs, cohort, named, time, preferred="sfnwmrda*")


@lru_cache(maxsize=2)
def _sites(root: Path) -> Mapping[str, str]:
    """Site of each subject of a table of phenotypes in the root."""
    found: dict[str, str] = {}
    codes = recipes.load("adhd200").site_codes
    for path in sorted(p for p in root.glob("*phenotypic*") if p.suffix in (".csv", ".tsv")):
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            for row in reader:
                spelt, site = row.get("ScanDir ID") or "", codes.get((row.get("Site") or "").strip())
                if site and spelt:
                    found[label(spelt)] = site
    return found


def label(spelt: str) -> str:
    """Label of a subject: seven digits, as in names of files; tables have ``10001``."""
    return roi_tables.padded(spelt, 7)


#: How it is read.
LAYOUTS: Final = {
    "adhd200": Layout(
        {
            **site_folders.LISTINGS,
            "timeseries": Listing(tables, table_rows, "sfnwmrda<id>_session_<n>_rest_<n>_<atlas>_TCs.1D"),
        },
        label,
    ),
}
