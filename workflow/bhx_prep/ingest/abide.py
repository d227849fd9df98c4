"""ABIDE I and II: raw data of the sites, and ROI x time tables of the Preprocessed Connectomes Project.

Raw data (``input: bids``), a BIDS dataset per site, see `bhx_prep.ingest.site_folders`; `bhx fetch` leaves them as in
the bucket ``fcp-indi`` below ``data/Projects/ABIDE`` (``ABIDE2/RawData``)::

    Phenotypic_V1_0b.csv           SUB_ID (50002), DX_GROUP (1 autism, 2 control), -9999 for unknown
    RawDataBIDS/
      CMU_a/                       24 folders, of 17 sites; ABIDE II: ABIDEII-BNI_1/ ..
        participants.tsv
        T1w.json
        task-rest_bold.json        RepetitionTime
        sub-0050642/
          anat/sub-0050642_T1w.nii.gz
          func/sub-0050642_task-rest_run-1_bold.nii.gz

ROI tables of ABIDE I (``input: timeseries``), below ``data/Projects/ABIDE_Initiative``::

    Phenotypic_V1_0b_preprocessed1.csv      FILE_ID is no_filename where a subject was not preprocessed
    Outputs/
      cpac/                        or ccs, dparsf, niak
        filt_global/               band-passed, global signal regressed; or filt_noglobal, nofilt_global, nofilt_noglobal
          rois_cc200/
            Pitt_0050003_rois_cc200.1D      a line of region numbers (#1 #2 ..), then a line per frame

The tables may be anywhere below the root: nilearn puts them in ``cpac/nofilt_noglobal``. They state no repetition time.
It is that of the site's raw scans, which the name of the file tells; it is noted for every run.

Documented at preprocessed-connectomes-project.org/abide and fcon_1000.projects.nitrc.org/indi/abide.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from bhx_prep.config import recipes
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.ingest import roi_tables, site_folders
from bhx_prep.ingest.fcp_indi import Offer, RoiTables
from bhx_prep.ingest.layouts import Layout, Listing, Places
from bhx_prep.ingest.rows import Row

_ROIS: Final = (
    "rois_cc200", "rois_cc400", "rois_aal", "rois_dosenbach160", "rois_ez", "rois_ho", "rois_tt",
)  # fmt: skip

#: What ``bhx fetch`` knows of them.
OFFERS: Final = {
    "abide1": Offer(
        raw="data/Projects/ABIDE/RawDataBIDS",
        tables=("data/Projects/ABIDE/Phenotypic_V1_0b.csv",),
        rois=RoiTables(
            "data/Projects/ABIDE_Initiative",
            "Phenotypic_V1_0b_preprocessed1.csv",
            _ROIS,
            ("cpac", "ccs", "dparsf", "niak"),
            ("filt_global", "filt_noglobal", "nofilt_global", "nofilt_noglobal"),
        ),
    ),
    "abide2": Offer(
        raw="data/Projects/ABIDE2/RawData",
        elsewhere=dict.fromkeys(
            _ROIS, "ROI tables were published of ABIDE I only; fetch `raw` and let BHX make them"
        ),
    ),
}

_FILE = re.compile(r"(?:(?P<site>[A-Za-z]\w*)_)?(?P<id>\d{7})_rois_\w+\.1D(\.gz)?")


def tables(root: Path) -> Mapping[str, Places]:
    """ROI tables by subject, wherever they are below the root."""
    return roi_tables.by_subject(root, _FILE)


def table_rows(start: Row, root: Path, places: Places, cohort: CohortSection, t1w_mm: float) -> Iterator[Row]:
    """The row of one subject's table; several derivatives or strategies contradict each other."""
    match = _FILE.fullmatch(Path(places[0]).name)
    site = match["site"] if match else None
    time = roi_tables.SiteTime(recipes.times("abide1").of(start["subject"], site), site)
    yield roi_tables.row(start, root, places, cohort, {"task": "rest"}, time)


def label(spelt: str) -> str:
    """Label of a subject of ABIDE I: seven digits, as in names of files; tables have ``50002``."""
    return roi_tables.padded(spelt, 7)


#: How they are read.
LAYOUTS: Final = {
    "abide1": Layout(
        {
            **site_folders.LISTINGS,
            "timeseries": Listing(
                tables, table_rows, "<FILE_ID>_rois_<atlas>.1D, such as Pitt_0050003_rois_cc200.1D"
            ),
        },
        label,
    ),
    "abide2": Layout(site_folders.LISTINGS, lambda spelt: roi_tables.padded(spelt, 5)),
}
