"""The Human Connectome Project: Young Adult (HCP-YA) and Aging (HCP-A), as the HCP pipelines write them.

The tree of HCP-YA, S1200 release ("Reference Manual", appendix III), and of HCP-A 2.0 in the NIMH Data Archive
("fmriresults01", which may be the root or a folder in it)::

    100307/MNINonLinear/                                   HCA6002236_V1_MR/MNINonLinear/
        T1w_restore_brain.nii.gz, brainmask_fs.nii.gz      MNI152NLin6Asym, 0.7 mm (HCP-A: 0.8 mm)
        Results/rfMRI_REST1_LR/                            rfMRI_REST1_AP/
            rfMRI_REST1_LR_Atlas_MSMAll_hp2000_clean.dtseries.nii
                                                           rfMRI_REST1_AP_Atlas_MSMAll_hp0_clean.dtseries.nii
            rfMRI_REST1_LR_Atlas_MSMAll.dtseries.nii       minimally preprocessed, not cleaned
            rfMRI_REST1_LR_hp2000_clean.nii.gz             the same in the volume, with brainmask_fs.2.nii.gz
            Movement_Regressors.txt                        translations (mm), rotations (degrees), their differences
            Movement_RelativeRMS.txt                       movement since the frame before (mm), after Jenkinson
        Results/rfMRI_REST/                                HCP-A only: the four runs joined in one file

Only data that were cleaned (ICA-FIX: high-pass, 24 motion signals and noise components are taken out) are used: there
are no signals of white matter or CSF, nor a table of confounds. Hence `strategy: none` where the user states no other,
and motion is measured from ``Movement_Regressors.txt``. The repetition time (0.72 and 0.8 s; 1 s at 7 T) stands in the
headers. REST1 and REST2 are runs 1 and 2, LR, RL, AP and PA are directions, V1, V2 .. of HCP-A are sessions. `space:
MNI152NLin6Asym` takes the volumes instead of the grayordinates.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from bhx_model.errors import DataError
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.ingest import metadata
from bhx_prep.ingest.anat import link_anat
from bhx_prep.ingest.bids_files import is_folder
from bhx_prep.ingest.layouts import Layout, Listing, Places
from bhx_prep.ingest.rows import Row, add_note, exclude, fill_repetition_time, new_row, no_bold
from bhx_prep.io.notes import Kind

SPACE: Final = "MNI152NLin6Asym"
_RUN = re.compile(
    r"(?P<kind>[rt]fMRI)_(?P<task>[A-Za-z]+)(?P<run>\d*)(_(?P<field>7T))?(_(?P<dir>LR|RL|AP|PA))?"
)
#: Endings of cleaned series after the run's name, the best first; alignment by folding alone (without MSMAll) is last.
_CLEANED = tuple(
    f"_Atlas{aligned}_{cleaned}.dtseries.nii"
    for aligned in ("_MSMAll", "")
    for cleaned in ("hp0_clean_rclean_tclean", "hp2000_clean_rclean_tclean", "hp2000_clean", "hp0_clean")
)
_CLEANED_VOLUMES = tuple(f"_{end}.nii.gz" for end in ("hp0_clean_rclean_tclean", "hp2000_clean", "hp0_clean"))
_T1WS = (("T1w_restore_brain.nii.gz", None), ("T1w_restore.nii.gz", "brainmask_fs.nii.gz"))

Names = Callable[[str], tuple[str, str] | None]


def young_adult(folder: str) -> tuple[str, str] | None:
    """Label and session of a subject's folder of HCP-YA; None for any other folder."""
    return (folder, "") if re.fullmatch(r"\d{6}", folder) else None


def aging(folder: str) -> tuple[str, str] | None:
    """Label and session of a folder of HCP-A: ``HCA6002236`` and ``V1`` of ``HCA6002236_V1_MR``."""
    found = re.fullmatch(r"(HC[AD]\d{7})_(V\d+)_MR", folder)
    return (found[1], found[2]) if found else None


def _subjects(root: Path, names: Names) -> dict[str, Places]:
    places: dict[str, list[str]] = defaultdict(list)
    for below in ("", "fmriresults01"):
        if not (root / below).is_dir():
            continue
        with os.scandir(root / below) as entries:
            for entry in entries:
                named = names(entry.name)
                if named and is_folder(entry):
                    places[named[0]].append(f"{below}/{entry.name}" if below else entry.name)
    return {label: tuple(sorted(of)) for label, of in places.items()}


def young_adult_subjects(root: Path) -> dict[str, Places]:
    """Folder of each subject of HCP-YA."""
    return _subjects(root, young_adult)


def aging_subjects(root: Path) -> dict[str, Places]:
    """Folders of each subject of HCP-A, one per visit."""
    return _subjects(root, aging)


def rows(start: Row, root: Path, places: Places, cohort: CohortSection, t1w_mm: float) -> Iterator[Row]:
    """Rows of a subject's T1 volumes and cleaned runs."""
    anats, runs = [], []
    others: set[str] = set()
    for place in places:
        folder = root / place
        session = (aging(folder.name) or ("", ""))[1]
        if not (folder / "MNINonLinear").is_dir():
            row = new_row(start, "bold", {"ses": session, "task": cohort.tasks[0]})
            exclude(row, f"there is no MNINonLinear in {folder.name}: fetch the preprocessed package")
            runs.append(row)
            continue
        anats.append(_t1w({**start, "kind": "volume"}, folder / "MNINonLinear", session))
        found, tasks = _runs(start, folder / "MNINonLinear" / "Results", session, cohort)
        runs += found
        others |= tasks
    yield from anats
    for row in runs or [no_bold(start, cohort.tasks, others)]:
        link_anat(row, anats)
        yield row


def _t1w(start: Row, folder: Path, session: str) -> Row:
    row = new_row(start, "t1w", {"ses": session})
    row["space"] = SPACE
    for name, mask in _T1WS:
        path = folder / name
        if not os.path.lexists(path) or (mask and not (folder / mask).exists()):
            continue
        row["path"], row["mask"] = str(path), str(folder / mask) if mask else None
        try:
            header = metadata.read_header(path)
            metadata.voxel_sizes({}, header)
            if len(header.get_data_shape()) != 3:
                exclude(row, f"{name} is no 3D volume")
        except DataError as error:
            exclude(row, f"{name}: {error}")
        return row
    exclude(row, f"there is no {_T1WS[0][0]} in MNINonLinear")
    return row


def _runs(start: Row, results: Path, session: str, cohort: CohortSection) -> tuple[list[Row], set[str]]:
    """Rows of the wanted tasks' runs, and the tasks there are."""
    folders: dict[str, list[tuple[str, dict[str, str]]]] = defaultdict(list)
    for name in sorted(path.name for path in results.iterdir()) if results.is_dir() else ():
        named = _RUN.fullmatch(name)
        if named is None:
            continue
        task = "rest" if named["kind"] == "rfMRI" and named["task"] == "REST" else named["task"]
        entities = {
            "ses": session,
            "task": task,
            "acq": named["field"],
            "dir": named["dir"],
            "run": named["run"],
        }
        folders[task].append((name, {entity: value for entity, value in entities.items() if value}))
    found = []
    for task in (task for task in folders if task in cohort.tasks):
        separate = [(name, named) for name, named in folders[task] if "dir" in named]
        # where the runs are there one by one, a file that joins them is the same data again
        for name, named in separate or folders[task]:
            row = _run({**start, "space": cohort.space}, results / name, named, cohort)
            if not separate:
                add_note(
                    row, Kind.CHOICE, f"{name} joins several runs: a patch may cross from one into the next"
                )
            found.append(row)
    return found, set(folders)


def _run(start: Row, folder: Path, named: dict[str, str], cohort: CohortSection) -> Row:
    in_volume = cohort.space.startswith("MNI")
    row = new_row({**start, "kind": "volume" if in_volume else "cifti"}, "bold", named)
    if cohort.space not in (SPACE, "fsLR"):
        exclude(row, f"no BOLD in space {cohort.space}; there is: fsLR, {SPACE}")
        return row
    there = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    endings = _CLEANED_VOLUMES if in_volume else _CLEANED
    name = next((folder.name + end for end in endings if folder.name + end in there), None)
    if name is None:
        exclude(row, _why_none(folder.name, there, endings[-2 if in_volume else 2]))
        return row
    row["path"] = str(folder / name)
    if not in_volume and "_MSMAll_" not in name:
        add_note(row, Kind.CHOICE, "aligned by folding alone, there is no MSMAll")
    measured = None
    try:
        if in_volume:
            header = metadata.read_header(folder / name)
            row["n_frames"], measured = metadata.n_frames(header), metadata.header_repetition_time(header)
            row["mask"] = _first(folder, there, ("brainmask_fs.2.nii.gz", "brainmask_fs.2.0.nii.gz"))
        else:
            row["n_frames"], measured = metadata.read_cifti_series(folder / name)
    except DataError as error:
        exclude(row, str(error))
    fill_repetition_time(row, folder / name, metadata.Sidecars(folder), measured, cohort.tr_s, cohort.tr)
    row["confounds"] = _first(folder, there, ("Movement_Regressors.txt", "Movement_RelativeRMS.txt"))
    if row["confounds"] is None:
        add_note(row, Kind.MOTION, "there is no Movement_Regressors.txt")
    return row


def _why_none(run: str, there: set[str], wanted: str) -> str:
    if any("_1.6mm_" in name and "_clean" in name for name in there):
        return f"{run} is there on the mesh of 59k vertices only: BHX needs {run}{wanted}"
    if any(name.endswith((".dtseries.nii", f"{run}.nii.gz")) for name in there):
        return f"{run} is not cleaned of noise: BHX needs {run}{wanted} (fetch the FIX package)"
    return f"there is no {run}{wanted}"


def _first(folder: Path, there: set[str], names: Sequence[str]) -> str | None:
    return next((str(folder / name) for name in names if name in there), None)


def label(spelt: str) -> str:
    """``HCA6002236`` of ``HCA6002236_V1`` or ``HCA6002236V1MR``, ``100307`` of ``100307.0``."""
    return re.sub(r"(_?V\d+.*|\.0)$", "", spelt.strip().removeprefix("sub-"))


LAYOUTS: Final = {
    "hcpya": Layout(
        {
            "fmriprep": Listing(
                young_adult_subjects, rows, "<six digits>/MNINonLinear/Results (unpacked packages)"
            )
        },
        label,
    ),
    "hcpa": Layout(
        {
            "fmriprep": Listing(
                aging_subjects, rows, "HCA<seven digits>_V1_MR/MNINonLinear/Results (unpacked)"
            )
        },
        label,
    ),
}
