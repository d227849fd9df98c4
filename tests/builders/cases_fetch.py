"""Cases of the catalogue: ABIDE and ADHD-200 as their public releases have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from input_cases import Seen, case, seen_scan
from public_releases import STRATEGY, series, write_athena_table, write_pcp_table, write_site
from small_bids import rows_of
from small_templates import N_ROIS, NAMES

AREA = "Known data sets"
TRUTH = series(N_ROIS)


def pcp(folder: Path, name: str = "Pitt_0050003", where: str = STRATEGY, *, names: bool = True) -> Path:
    """One table of the Preprocessed Connectomes Project, and the names of its regions."""
    path = write_pcp_table(folder / "data" / where / f"{name}_rois_cc200.1D", TRUTH)
    if names:
        (folder / "data" / "names.txt").write_text("\n".join(NAMES) + "\n")
    return path


def seen_pcp(folder: Path, **section: Any) -> Seen:
    return seen_scan(folder, TRUTH, input="timeseries", layout="abide1", **section)


@case(
    AREA,
    "ABIDE I: ROI table of the Preprocessed Connectomes Project",
    "note",
    "1.5 s, as the raw scans of site Pitt",
)
def _pcp(folder: Path) -> Seen:
    pcp(folder)
    return seen_pcp(folder)


@case(AREA, "ABIDE I: ROI table whose numbers of regions are a comment (`# #1 #2`)", "note", "names.txt")
def _commented(folder: Path) -> Seen:
    write_pcp_table(pcp(folder), TRUTH, mark="# ")
    return seen_pcp(folder)


@case(AREA, "ABIDE I: ROI table where nilearn puts it", "note", "2 s, as the raw scans of site CMU_a")
def _nilearn(folder: Path) -> Seen:
    pcp(folder, "CMU_a_0050642", "ABIDE_pcp/cpac/nofilt_noglobal")
    return seen_pcp(folder)


@case(
    AREA,
    "ABIDE I: ROI table without names of its regions",
    "refused",
    "no ROI names.*give the cohort `names`",
)
def _nameless(folder: Path) -> Seen:
    pcp(folder, names=False)
    return seen_pcp(folder)


@case(AREA, "ABIDE I: ROI table of a site that is not ABIDE's", "refused", "of site Elsewhere is not known")
def _unknown_site(folder: Path) -> Seen:
    pcp(folder, "Elsewhere_0050003")
    return seen_pcp(folder)


@case(AREA, "ABIDE I: two strategies of one subject", "refused", "2 tables of one run.*choose with `series`")
def _two_strategies(folder: Path) -> Seen:
    pcp(folder)
    pcp(folder, where="Outputs/cpac/nofilt_noglobal/rois_cc200")
    return seen_pcp(folder)


@case(AREA, "ABIDE I: two strategies, one chosen with `series`", "note", "as the raw scans of site Pitt")
def _chosen_strategy(folder: Path) -> Seen:
    pcp(folder)
    write_pcp_table(
        folder / "data/Outputs/cpac/nofilt_noglobal/rois_cc200/Pitt_0050003_rois_cc200.1D", -TRUTH
    )
    return seen_pcp(folder, series="**/filt_global/*")


@case(AREA, "ABIDE I: a web page instead of a ROI table", "refused", "web page")
def _web_page(folder: Path) -> Seen:
    pcp(folder).write_text("<!DOCTYPE html><html>503</html>")
    return seen_pcp(folder)


@case(AREA, "ABIDE I: a ROI table that is cut off within a line", "refused", "Pitt_0050003_rois_cc200")
def _cut(folder: Path) -> Seen:
    path = pcp(folder)
    text = path.read_text()
    path.write_text(text[: len(text) - 30])
    return seen_pcp(folder)


@case(
    AREA,
    "ADHD-200: ROI table of the Athena pipeline, filtered and unfiltered",
    "note",
    "chosen among several: sfnwmrda",
)
def _athena(folder: Path) -> Seen:
    own = folder / "data" / "NYU" / "0010001"
    write_athena_table(own / "sfnwmrda0010001_session_1_rest_1_cc200_TCs.1D", TRUTH)
    write_athena_table(own / "snwmrda0010001_session_1_rest_1_cc200_TCs.1D", -TRUTH)
    (folder / "data" / "names.txt").write_text("\n".join(NAMES) + "\n")
    return seen_scan(folder, TRUTH, input="timeseries", layout="adhd200")


@case(AREA, "ABIDE I, raw: repetition time in a site's own sidecar only", "read")
def _raw(folder: Path) -> Seen:
    write_site(folder, "Pitt", ["0050003"], tr_s=1.5)
    write_site(folder, "KKI", ["0050772"], tr_s=2.5)
    rows = [r for r in rows_of(folder, layout="abide1") if r["modality"] == "bold"]
    right = [(r["tr_s"], r["status"]) for r in rows] == [(1.5, "ok"), (2.5, "ok")]
    return Seen("read" if right else "wrong values", "; ".join(str(r["reason"]) for r in rows if r["reason"]))


@case(AREA, "ABIDE II, raw: a subject in the folders of two sites", "refused", "folders of .* and ")
def _two_sites(folder: Path) -> Seen:
    write_site(folder, "ABIDEII-UCLA_1", ["29001"], session="1")
    write_site(folder, "ABIDEII-UCLA_Long", ["29001"], session="1")
    (row,) = rows_of(folder, layout="abide2")
    return Seen("refused" if row["status"] == "excluded" else "read", row["reason"] or "")
