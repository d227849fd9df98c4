"""The T1w rows of a subject, at each of the inputs: one image per session is used."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Final

from bhx_model.errors import DataError
from bhx_prep.ingest import metadata
from bhx_prep.ingest.bids_files import File, natural
from bhx_prep.ingest.rows import (
    IMAGES,
    Row,
    as_text,
    best,
    check_name,
    exclude,
    new_row,
    resolution_rank,
    sample_key,
)

#: Standard space of the T1w images, whatever the space of the BOLD.
ANAT_SPACE: Final = "MNI152NLin2009cAsym"


def choose_t1w(
    start: Row, files: list[File], sidecars: metadata.Sidecars, *, raw: bool = False, space: str | None = None
) -> list[Row]:
    """Rows of a subject's T1w images, those that are used first: one per session, the others are excluded.

    Parameters
    ----------
    raw : bool
        Images of the scanner; otherwise outputs of preprocessing, of which the one in the standard space is used.
    space : str, optional
        The only standard space that is accepted; any when None.
    """
    images = [f for f in files if f.suffix == "T1w" and f.ending in IMAGES]
    sessions: dict[str | None, list[File]] = defaultdict(list)
    for file in images:
        sessions[file.entities.get("ses")].append(file)
    used, others = [], []
    for ses, of_session in sorted(sessions.items(), key=lambda item: natural(item[0] or "")):
        candidates = of_session
        if not raw:
            spaces = sorted({f.entities.get("space", "native") for f in of_session})
            if space is not None:
                candidates = [f for f in of_session if f.entities.get("space") == space]
            candidates = [f for f in candidates if f.entities.get("desc", "preproc") == "preproc"]
            candidates = best(candidates, lambda f: f.entities.get("space") != ANAT_SPACE)
            candidates = best(candidates, resolution_rank)
            if not candidates:
                row = new_row(start, "t1w", {"ses": ses or ""})
                exclude(row, f"no T1w image in space {space or ANAT_SPACE}; there is: {', '.join(spaces)}")
                others.append(row)
        rows = [_t1w_row(start, file, files, sidecars) for file in candidates]
        if raw:
            for row, file in zip(rows, candidates, strict=True):
                check_raw(row, file)
        # an image with contrast agent comes last
        rows.sort(key=lambda row: (row["status"] != "ok", "_ce-" in row["path"], natural(row["path"])))
        for row in rows[:1]:
            row["key"] = sample_key(start["cohort"], start["subject"], {"ses": ses or ""})
            used.append(row)
        for row in rows[1:]:
            if rows[0]["status"] == "ok":
                exclude(row, f"one T1w image of a session is used: {Path(rows[0]['path']).name}")
            others.append(row)
    return used + others


def _t1w_row(start: Row, file: File, files: list[File], sidecars: metadata.Sidecars) -> Row:
    row = new_row(start, "t1w", file.entities, file.path)
    row["space"] = file.entities.get("space")
    row["task"] = None
    keep = ("ses", "acq", "ce", "rec", "run", "task", "space", "res")
    same = {e: file.entities.get(e) for e in keep}
    for mask in files:
        is_brain = mask.suffix == "mask" and mask.entities.get("desc") == "brain"
        if is_brain and {e: mask.entities.get(e) for e in keep} == same:
            row["mask"] = str(mask.path)
    check_name(row, file)
    try:
        fields, sidecar = sidecars.fields_of(file.path)
        row["sidecar"] = as_text(sidecar)
        header = metadata.read_header(file.path)
        shape = header.get_data_shape()
        if len(shape) != 3 and shape[3:] != (1,):
            msg = f"the image is {len(shape)}D ({' x '.join(map(str, shape))}): expected a 3D volume"
            raise DataError(msg)
        metadata.voxel_sizes(fields, header)
    except DataError as error:
        exclude(row, str(error))
    return row


def check_raw(row: Row, file: File) -> None:
    """Exclude outputs of preprocessing: to preprocess them again would be an error that nobody notices."""
    made = [f"{entity}-{file.entities[entity]}" for entity in ("space", "desc") if entity in file.entities]
    if made:
        exclude(
            row,
            f"{' and '.join(made)} in the file name: expected a raw image; for derivatives use `input: fmriprep`",
        )


def link_anat(row: Row, anats: list[Row]) -> None:
    """Name the T1w image that belongs to a run: of the same session, else the subject's first."""
    usable = [a for a in anats if a["status"] == "ok"]
    same = [a for a in usable if a["session"] == row["session"]]
    row["anat"] = next((a["key"] for a in same + usable), None)
