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
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

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
        cite="Di Martino et al. 2014, doi:10.1038/mp.2013.78; for ROI tables also Craddock et al. 2013, "
        "doi:10.3389/conf.fninf.2013.09.00041",
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
        cite="Di Martino et al. 2017, doi:10.1038/sdata.2017.10",
        raw="data/Projects/ABIDE2/RawData",
        elsewhere=dict.fromkeys(
            _ROIS, "ROI tables were published of ABIDE I only; fetch `raw` and let BHX make them"
        ),
    ),
}

#: Repetition time (s) of ABIDE I by the site in a file's name: RepetitionTime of its raw scans in the BIDS release.
REPETITION_TIMES: Final = {
    "CMU_a": 2.0, "CMU_b": 1.5, "Caltech": 2.0, "KKI": 2.5, "Leuven_1": 1.67, "Leuven_2": 1.65, "MaxMun_a": 3.0,
    "MaxMun_b": 3.0, "MaxMun_c": 3.0, "MaxMun_d": 3.0, "NYU": 2.0, "OHSU": 2.5, "Olin": 1.5, "Pitt": 1.5, "SBL": 2.2,
    "SDSU": 2.0, "Stanford": 2.0, "Trinity": 2.0, "UCLA_1": 3.0, "UCLA_2": 3.0, "UM_1": 2.0, "UM_2": 2.0, "USM": 2.0,
    "Yale": 2.0,
}  # fmt: skip
#: Subjects who were not scanned as the rest of their site.
_OTHER_TIMES: Final[dict[str, float]] = {"0050708": 1.66, "0050748": 1.67, "0050756": 1.67, "0050757": 1.67}

_FILE = re.compile(r"(?:(?P<site>[A-Za-z]\w*)_)?(?P<id>\d{7})_rois_\w+\.1D(\.gz)?")


def tables(root: Path) -> Mapping[str, Places]:
    """ROI tables by subject, wherever they are below the root."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in root.glob("**/*_rois_*.1D*"):
        match = _FILE.fullmatch(path.name)
        if match:
            found[match["id"]].append(path.relative_to(root).as_posix())
    return {label: sorted(places) for label, places in found.items()}


def table_rows(start: Row, root: Path, places: Places, cohort: CohortSection, t1w_mm: float) -> Iterator[Row]:
    """The row of one subject's table; several derivatives or strategies contradict each other."""
    match = _FILE.fullmatch(Path(places[0]).name)
    site = match["site"] if match else None
    known = _OTHER_TIMES.get(start["subject"]) or REPETITION_TIMES.get(site or "")
    yield roi_tables.row(start, root, places, cohort, {"task": "rest"}, roi_tables.SiteTime(known, site))


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
