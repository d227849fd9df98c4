"""Cases of ROI x time tables: where names stand, which axis is time, how the text is written."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from input_cases import Seen, case, matches, read_cohort, seen_scan
from small_templates import N_ROIS, NAMES

from bhx_prep.atlas.atlas import Atlas
from bhx_prep.commands.parcellate import write_series
from bhx_prep.features.parcel_means import Parcellated

AREA = "Tables of ROI x time"
STEM = "sub-01_task-rest_timeseries"
#: ROI x time, another order of names, and that order's series.
SERIES = np.round(1000 + 10 * np.random.default_rng(4).standard_normal((N_ROIS, 30)), 4)
ORDER = np.array([3, 1, 7, 0, 5, 2, 6, 4])
MIXED = [NAMES[i] for i in ORDER]
FRAMES = [f"timepoint_{t}" for t in range(30)]


def place(folder: Path, ending: str, stem: str = STEM) -> Path:
    """Path of the one table."""
    path = folder / "data" / "sub-01" / "func" / f"{stem}.{ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def text(lines: Sequence[Sequence[Any]], separator: str = "\t", end: str = "\n") -> str:
    """Text of cells."""
    return end.join(separator.join(map(str, line)) for line in lines) + end


def by_column(names: Sequence[Any] = MIXED, values: np.ndarray = SERIES[ORDER]) -> list[list[Any]]:
    """A header of names, a line per frame."""
    return [list(names), *values.T.tolist()]


def by_row(*header: str) -> list[list[Any]]:
    """A header, and a line per ROI that begins with its name."""
    return [list(header), *([name, *row] for name, row in zip(MIXED, SERIES[ORDER].tolist(), strict=True))]


def seen(folder: Path, truth: np.ndarray | None = SERIES, **section: Any) -> Seen:
    """What becomes of the table."""
    return seen_scan(folder, truth, input="timeseries", **{"tr_s": 2, **section})


def of_text(
    what: str, expected: Any, says: str, ending: str, content: Callable[[], str | bytes], **section: Any
) -> None:
    """Enter a case of a text table."""

    @case(AREA, what, expected, says)
    def run(folder: Path) -> Seen:
        written = content()
        raw = written.encode() if isinstance(written, str) else written
        place(folder, ending).write_bytes(gzip.compress(raw) if ending.endswith(".gz") else raw)
        return seen(folder, **section)


REORDERED = "reordered by name"

of_text("names as a header (XCP-D), a parcel without coverage as n/a", "note", REORDERED, "tsv",
        lambda: text([[*MIXED], *SERIES[ORDER].T.tolist()]))  # fmt: skip
of_text("names in the first column, frames counted in the header (UK Biobank), gzipped", "note", REORDERED, "csv.gz",
        lambda: text(by_row("label_name", *FRAMES), ","))  # fmt: skip
of_text("names as byte strings, `b'17Networks_..'`", "note", REORDERED, "csv",
        lambda: text(by_column([str(n.encode()) for n in MIXED]), ","))  # fmt: skip
of_text("names in another case, with dots, R's X before digits, row numbers", "note", REORDERED, "csv",
        lambda: text([["", *("X" + n.replace("_", ".").upper() for n in MIXED)],
                      *([i + 1, *s] for i, s in enumerate(SERIES[ORDER].T.tolist()))], ","))  # fmt: skip
of_text("R's write.table: row names without a header", "note", REORDERED, "txt",
        lambda: text([[f'"{name}"' for name in MIXED],
                      *([f'"{i + 1}"', *s] for i, s in enumerate(SERIES[ORDER].T.tolist()))], " "))  # fmt: skip
of_text("semicolons in a .csv, with Excel's `sep=;` and a BOM", "note", "semicolons", "csv",
        lambda: b"\xef\xbb\xbfsep=;\r\n" + text(by_column(), ";", "\r\n").encode())  # fmt: skip
of_text("commas in a .tsv", "note", "commas", "tsv", lambda: text(by_column(), ","))
of_text("lines that end in CR alone", "note", REORDERED, "tsv", lambda: text(by_column(), end="\r"))
of_text("UTF-16", "note", REORDERED, "tsv", lambda: text(by_column()).encode("utf-16"))
of_text("decimal commas", "refused", "decimal point, not a comma", "csv",
        lambda: text(by_column(), ";").replace(".", ","))  # fmt: skip
of_text("a header with tabs over lines with commas", "refused", "by tabs, the second by commas", "tsv",
        lambda: "\t".join(MIXED) + "\n" + text(SERIES[ORDER].T.tolist(), ","))  # fmt: skip
of_text("a line that is one cell short", "refused", "line 6 has 7 cells", "tsv",
        lambda: text([*by_column()[:5], SERIES[1:, 4].tolist(), *by_column()[6:]]))  # fmt: skip
of_text("a cell that Excel turned into a date", "refused", "'Mar 01'.* is no number", "tsv",
        lambda: text(by_column()).replace(str(SERIES[3, 4]), "Mar 01"))  # fmt: skip
of_text("a single line of 5 MB", "refused", "longer than 4 MB", "csv", lambda: b"1.5," * 1_300_000)
of_text("names of the 7-network order", "refused", "7-network order", "tsv",
        lambda: text(by_column([n.replace("17N", "7N") for n in MIXED])))  # fmt: skip
of_text("names of another atlas", "refused", "8 unknown \\('Left Hippocampus a', 'Left Hippocampus b'", "tsv",
        lambda: text(by_column([f"Left Hippocampus {letter}" for letter in "abcdefgh"])))  # fmt: skip
of_text("Schaefer's names from before September 2019", "refused", "before September 2019.*by position", "tsv",
        lambda: text(by_column([n.replace("Vis_4", "ExStr_5") for n in MIXED])))  # fmt: skip
of_text("one ROI too many", "refused", "9 ROIs, .* has 8: 1 unknown \\('17Networks_LH_Amy'\\)", "tsv",
        lambda: text(by_column([*MIXED, "17Networks_LH_Amy"], np.vstack([SERIES[ORDER], SERIES[:1] + 1]))))  # fmt: skip
of_text("frames sorted as text: t1, t10, t2", "refused", "out of order", "csv",
        lambda: text(by_row("name", *sorted(f"t{i}" for i in range(30))), ","))  # fmt: skip
of_text("a column beside the frames that is not a frame", "refused", "'n_voxels' is neither ROI nor frame", "csv",
        lambda: text(by_row("name", "n_voxels", *FRAMES[1:]), ","))  # fmt: skip
of_text("label numbers between names and series, no header", "note", "holds numbers of labels", "tsv",
        lambda: text([[n, 2001 + 10 * (i % 5) + i, *s] for i, (n, s) in
                      enumerate(zip(MIXED, SERIES[ORDER].tolist(), strict=True))]))  # fmt: skip
of_text("a name that pandas numbered, because it occurs twice", "refused", "twice, the second time as '.*\\.1'", "csv",
        lambda: text(by_column([*MIXED[:7], MIXED[0] + ".1"]), ","))  # fmt: skip
of_text("no names anywhere (nilearn, HALFpipe)", "refused", "is 30 x 8: give the cohort `names`", "tsv",
        lambda: text(SERIES.T.tolist()))  # fmt: skip


def names_file(folder: Path, names: Sequence[str] = NAMES) -> None:
    """`names.txt` in the root."""
    (folder / "data" / "names.txt").write_text("\n".join(names) + "\n")


@case(
    AREA,
    "C-PAC's .1D, ROIs counted behind `#`, with names.txt in the root",
    "note",
    "columns are the ROIs of names.txt",
)
def c_pac(folder: Path) -> Seen:
    lines = [[f"#{i + 1}" for i in range(N_ROIS)], *SERIES.T.tolist()]
    place(folder, "1D", "sub-01_task-rest_desc-Mean-1_timeseries").write_text(text(lines))
    names_file(folder)
    return seen(folder)


@case(
    AREA, "ROIs counted with a gap, with names.txt in the root", "note", "'#3' before '#5'.*ROIs of names.txt"
)
def gaps_of_numbers(folder: Path) -> Seen:
    lines = [[f"#{i + 1 + (i > 2)}" for i in range(N_ROIS)], *SERIES.T.tolist()]
    place(folder, "1D").write_text(text(lines))
    names_file(folder)
    return seen(folder)


@case(AREA, "AFNI's 3dROIstats, with names.txt in the root", "note", "columns are the ROIs of names.txt")
def afni(folder: Path) -> Seen:
    lines = [["File", "Sub-brick", *(f"Mean_{i + 1} " for i in range(N_ROIS))]]
    lines += [["bold.nii.gz", f"{t}[?]", *s] for t, s in enumerate(SERIES.T.tolist())]
    place(folder, "1D").write_text(text(lines))
    names_file(folder)
    return seen(folder)


@case(AREA, "a frame of row numbers before nameless series", "note", "only counts rows and is left out")
def row_numbers(folder: Path) -> Seen:
    pd.DataFrame(SERIES.T).to_csv(place(folder, "csv"))
    names_file(folder)
    return seen(folder)


def of_array(
    what: str, expected: Any, says: str, array: Callable[[], np.ndarray], names: bool = True, **section: Any
) -> None:
    """Enter a case of an array."""

    @case(AREA, what, expected, says)
    def run(folder: Path) -> Seen:
        np.save(place(folder, "npy"), array(), allow_pickle=True)
        if names:
            names_file(folder)
        return seen(folder, **section)


of_array("an array of frames x ROI (nilearn), with names.txt in the root", "note", "columns are the ROIs of names.txt",
         lambda: SERIES.T)  # fmt: skip
of_array("an array whose first row holds label numbers, with names.txt in the root", "note",
         "first row holds numbers of labels",
         lambda: np.vstack([2001 + 10 * np.arange(N_ROIS), SERIES.T]))  # fmt: skip
of_array("an array whose first row holds label numbers that are not ascending", "refused", "ROIs are out of order",
         lambda: np.vstack([2001 + 10 * ORDER, SERIES.T]))  # fmt: skip
of_array("an array whose first column holds times, with names.txt in the root", "note", "first column holds times",
         lambda: np.column_stack([2.2 * np.arange(30), SERIES.T]))  # fmt: skip
of_array("an array without names", "refused", "give the cohort `names`", lambda: SERIES, names=False)
of_array("an array without names, `orientation` stated", "refused", "give the cohort `names`", lambda: SERIES, names=False,
         orientation="roi,frame")  # fmt: skip
of_array(
    "a square array with names.txt",
    "refused",
    "set the cohort's `orientation`",
    lambda: np.tile(SERIES[:, :8], 1),
)
of_array("an array of objects", "refused", "Python objects", lambda: SERIES.astype(object))
of_array("an array of complex numbers", "refused", "complex128", lambda: SERIES.astype(complex))
of_array("an array of strings", "refused", "real numbers", lambda: SERIES.astype(str))
of_array("records whose fields are ROIs", "note", REORDERED,
         lambda: pd.DataFrame(SERIES[ORDER].T, columns=MIXED).to_records(index=False), names=False)  # fmt: skip


@case(AREA, "a square array, `orientation` stated and names.txt in the root", "note", "columns are the ROIs")
def square(folder: Path) -> Seen:
    values = np.round(np.random.default_rng(1).standard_normal((32, 32)), 3)[:8, :8]
    np.save(place(folder, "npy"), values.T)
    names_file(folder)
    return seen(folder, None, tr_s=4, orientation="frame,roi")


@case(AREA, "a connectivity matrix instead of series", "refused", "a matrix of ROI x ROI")
def connectivity(folder: Path) -> Seen:
    values = np.round(np.corrcoef(SERIES), 3)
    pd.DataFrame(values, index=NAMES, columns=NAMES).to_csv(place(folder, "tsv"), sep="\t")
    return seen(folder)


@case(AREA, "names in the index of a DataFrame (Parquet)", "note", REORDERED)
def parquet_index(folder: Path) -> Seen:
    pd.DataFrame(SERIES[ORDER], index=MIXED).rename(columns=str).to_parquet(place(folder, "parquet"))
    return seen(folder)


@case(AREA, "a Parquet table that holds text", "refused", "holds text where numbers are expected")
def parquet_text(folder: Path) -> Seen:
    pd.DataFrame(SERIES.T, columns=NAMES).astype(str).to_parquet(place(folder, "parquet"))
    return seen(folder)


@case(AREA, "a Feather table of complex objects", "refused", "real numbers are expected")
def feather_objects(folder: Path) -> Seen:
    frame = pd.DataFrame(SERIES.T, columns=NAMES)
    frame[NAMES[2]] = [[1, 2]] * len(frame)
    frame.to_feather(place(folder, "feather"))
    return seen(folder)


@case(
    AREA,
    "names as a list in the JSON sidecar of an array",
    "note",
    "the ROIs of sub-01_task-rest_timeseries.json",
)
def json_names(folder: Path) -> Seen:
    np.save(place(folder, "npy"), SERIES[ORDER])
    place(folder, "json").write_text(json.dumps({"RepetitionTime": 2, "ROINames": MIXED}))
    return seen(folder, tr_s=None)


@case(
    AREA, "names in `atlas-.._dseg.tsv` beside a table without names", "note", "the ROIs of atlas-S8_dseg.tsv"
)
def dseg_names(folder: Path) -> Seen:
    path = place(folder, "tsv", "sub-01_task-rest_atlas-S8_timeseries")
    path.write_text(text(SERIES[ORDER].T.tolist()))
    (path.parent / "atlas-S8_dseg.tsv").write_text(
        text([["index", "name"], *([i + 1, n] for i, n in enumerate(MIXED))])
    )
    return seen(folder)


@case(AREA, "names.txt with the 7-network order", "refused", "7-network order")
def stated_seven(folder: Path) -> Seen:
    np.save(place(folder, "npy"), SERIES)
    names_file(folder, [n.replace("17N", "7N") for n in NAMES])
    return seen(folder)


@case(AREA, "two tables for one run, one of them chosen by `select: {seg: ..}`", "read")
def two_tables_selected(folder: Path) -> Seen:
    for seg, names in (("4S456Parcels", NAMES), ("Gordon", ["L_Default_1"] * N_ROIS)):
        place(folder, "tsv", f"sub-01_task-rest_seg-{seg}_stat-mean_timeseries").write_text(
            text(by_column(names, SERIES))
        )
    rows, arrays = read_cohort(folder, input="timeseries", tr_s=2, select={"seg": ["4S456Parcels"]})
    (row,) = [row for row in rows if row["status"] == "ok"]
    return Seen("read" if matches(arrays[row["key"]], SERIES) else "wrong values")


@case(
    AREA,
    "XCP-D: the repetition time is beside the table, with the denoised image",
    "note",
    "0.8 s of .*_bold.json",
)
def xcp_d_time(folder: Path) -> Seen:
    stem = "sub-01_task-rest_space-MNI152NLin2009cAsym"
    place(folder, "tsv", f"{stem}_seg-A_stat-mean_timeseries").write_text(
        text(by_column(NAMES, np.tile(SERIES, 2)))
    )
    place(folder, "json", f"{stem}_desc-denoised_bold").write_text('{"RepetitionTime": 0.8}')
    return seen(folder, np.tile(SERIES, 2), tr_s=None)


@case(AREA, "two tables for one run", "refused", "2 files claim to be this scan")
def two_tables(folder: Path) -> Seen:
    for seg in ("4S456Parcels", "Glasser"):
        place(
            folder, "tsv", f"sub-01_task-rest_space-MNI152NLin2009cAsym_seg-{seg}_stat-mean_timeseries"
        ).write_text(text(by_column()))
    return seen(folder)


@case(AREA, "a table that `bhx parcellate` wrote, with its repetition time", "read")
def own_output(folder: Path) -> Seen:
    found = Parcellated(SERIES.astype(np.float32), np.ones(N_ROIS, np.float32))
    write_series(place(folder, "parquet"), Atlas("a", tuple(NAMES)), found, 2.0)
    return seen(folder, tr_s=None)
