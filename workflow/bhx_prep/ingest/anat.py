"""T1w rows of a subject for every kind of input: one image per session is used."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any, Final

from bhx_model.errors import DataError
from bhx_prep.ingest import metadata
from bhx_prep.ingest.bids_files import File, natural
from bhx_prep.ingest.choice import T1W_MM, Choice, scans_tables
from bhx_prep.ingest.rows import (
    IMAGES,
    Row,
    add_note,
    as_text,
    best,
    check_name,
    exclude,
    new_row,
    sample_key,
)
from bhx_prep.io import bids_names, notes
from bhx_prep.io.spaces import MNI152, space_of, t1w_spaces

#: Voxel sizes that differ by less than this share are one resolution.
SAME_GRID: Final = 0.05

_NO_MAGNITUDE: Final = "there is a phase image only, no magnitude"


def choose_t1w(
    start: Row,
    files: list[File],
    sidecars: metadata.Sidecars,
    choice: Choice | None = None,
    *,
    raw: bool = False,
) -> list[Row]:
    """Rows of a subject's T1w images, those that are used first: one per session, the others are excluded.

    Parameters
    ----------
    start : dict
        Fields that all rows of the subject share.
    files : list of File
        Of the subject; masks and ``scans.tsv`` among them.
    sidecars : Sidecars
    choice : Choice, optional
        What decides among several.
    raw : bool
        Images of the scanner; otherwise outputs of preprocessing, of which one in a standard space is used.
    """
    choice = choice or Choice()
    flagged, _ = scans_tables(files)
    sessions: dict[str | None, list[File]] = defaultdict(list)
    used, others = [], []
    for file in files:
        if file.suffix != "T1w" or file.ending not in IMAGES:
            continue
        session = {"ses": file.entities.get("ses", "")}
        keys = [sample_key(start["cohort"], start["subject"], named) for named in (file.entities, session)]
        reason = choice.left_out(file.path, keys, flagged)
        if reason is None:
            sessions[file.entities.get("ses")].append(file)
        elif raw or space_of(file.entities) in t1w_spaces(choice.space):
            others.append(new_row(start, "t1w", file.entities, file.path))
            exclude(others[-1], reason)
    for ses, of_session in sorted(sessions.items(), key=lambda item: natural(item[0] or "")):
        named = {"ses": ses or ""}
        candidates = _signal(of_session)
        if candidates and not raw:
            candidates = _in_standard_space(candidates, choice)
        if not candidates:
            others.append(_no_t1w(start, named, of_session, choice))
            continue
        rows = _ranked(start, candidates, files, sidecars, choice, raw=raw)
        if rows[0]["status"] == "ok" and len(rows) > 1:
            add_note(rows[0], notes.Kind.CHOICE, f"one of {len(rows)} T1w images of this session")
        rows[0]["key"] = sample_key(start["cohort"], start["subject"], named)
        used.append(rows[0])
        for row in rows[1:]:
            if rows[0]["status"] == "ok":
                exclude(row, f"one T1w image of a session is used: {Path(rows[0]['path']).name}")
            others.append(row)
    return used + others


def _signal(files: list[File]) -> list[File]:
    """Images that hold the signal's magnitude: phases and the inversions of MP2RAGE belong to another image."""
    return [f for f in files if f.entities.get("part", "mag") == "mag" and "inv" not in f.entities]


def _no_t1w(start: Row, named: dict[str, str], files: list[File], choice: Choice) -> Row:
    """The row of a session without any T1w image that could be used."""
    signal = _signal(files)
    if not signal:
        row = new_row(start, "t1w", named, files[0].path)
        inversion = "inv" in files[0].entities
        exclude(row, "there is one inversion of MP2RAGE only, no T1w image" if inversion else _NO_MAGNITUDE)
        return row
    row = new_row(start, "t1w", named)
    spaces = sorted({space_of(f.entities) or "native" for f in signal})
    exclude(row, f"no T1w image in space {t1w_spaces(choice.space)[0]}; there is: {', '.join(spaces)}")
    return row


def _in_standard_space(files: list[File], choice: Choice) -> list[File]:
    """Preprocessed images in the first standard space that has any."""
    spaces = t1w_spaces(choice.space)
    desc = choice.select.get("desc", ("preproc",))
    there = [f for f in files if space_of(f.entities) in spaces and f.entities.get("desc", desc[0]) in desc]
    return best(there, lambda f: spaces.index(space_of(f.entities) or ""))


def _ranked(
    start: Row,
    files: list[File],
    all_files: list[File],
    sidecars: metadata.Sidecars,
    choice: Choice,
    *,
    raw: bool,
) -> list[Row]:
    """Rows of the T1w images of a session, the one to use first."""
    selected = choice.selected_t1w(files)
    acquisitions: dict[tuple[str | None, ...], list[File]] = defaultdict(list)
    for file in selected:
        named = bids_names.unpadded(file.entities)
        acquisitions[tuple(map(named.get, ("acq", "ce", "rec", "run", "echo")))].append(file)
    ranked = []
    for same in acquisitions.values():
        taken = same if raw else _on_grid(same, choice)
        for file in taken:
            row = _t1w_row(start, file, all_files, sidecars)
            if raw:
                check_raw(row, file)
            else:
                _note_derivative(row, file, len(same) - len(taken), choice)
            # one echo of several comes after the image made of all, one with contrast agent last
            order = ("echo" in file.entities, "ce" in file.entities, natural(str(file.path)))
            ranked.append(((row["status"] != "ok", choice.rank(file.entities), *order), row))
    rows = [row for _, row in sorted(ranked, key=lambda item: item[0])]
    for file in files:
        if file not in selected:
            rows.append(new_row(start, "t1w", file.entities, file.path))
            exclude(rows[-1], choice.not_selected(file.entities) or "left out by `select`")
    return rows


def _on_grid(files: list[File], choice: Choice) -> list[File]:
    """Of one image at several resolutions the one nearest to the model's grid; finer is better than coarser."""
    if len(files) == 1:
        return files

    grid_mm = choice.t1w_mm or T1W_MM

    def rank(file: File) -> tuple[Any, ...]:
        size = _voxel_mm(file.path)
        off = abs(size / grid_mm - 1)
        return choice.rank(file.entities), off > SAME_GRID, size > grid_mm, off if off > SAME_GRID else 0

    return best(files, rank)


def _voxel_mm(path: Path) -> float:
    """Longest edge of an image's voxels (mm); very long where the header cannot be read."""
    try:
        return max(metadata.voxel_sizes({}, metadata.read_header(path)))
    except DataError:  # becomes a reason when the image is taken
        return 1e6


def _note_derivative(row: Row, file: File, passed: int, choice: Choice) -> None:
    """Note a T1w volume that is not what was to be expected, or was chosen among several resolutions."""
    space, wanted = space_of(file.entities), t1w_spaces(choice.space)[0]
    if space != wanted:
        add_note(row, notes.Kind.SPACE, f"T1w in {space}, there is none in {wanted}")
    elif space not in MNI152:
        add_note(row, notes.Kind.SPACE, f"T1w in {space}, as `space` asks: not the space of the model's grid")
    if row["status"] != "ok" or choice.t1w_mm is None:
        return
    size = _voxel_mm(file.path)
    if passed and not choice.own:
        add_note(
            row,
            notes.Kind.CHOICE,
            f"T1w of {size:g} mm, of {passed + 1} resolutions (grid: {choice.t1w_mm:g} mm)",
        )
    if size > choice.t1w_mm * (1 + SAME_GRID):
        detail = f"voxels of {size:g} mm, upsampled to features.t1w_resolution_mm, {choice.t1w_mm:g} mm"
        add_note(row, notes.Kind.T1W, detail)


def _t1w_row(start: Row, file: File, files: list[File], sidecars: metadata.Sidecars) -> Row:
    row = new_row(start, "t1w", file.entities, file.path)
    row["space"] = space_of(file.entities)
    row["task"] = None
    keep = ("ses", "acq", "ce", "rec", "run", "task", "space", "cohort", "res")
    same = {e: bids_names.unpadded(file.entities).get(e) for e in keep}
    for mask in files:
        is_brain = mask.suffix == "mask" and mask.entities.get("desc") == "brain"
        if is_brain and {e: bids_names.unpadded(mask.entities).get(e) for e in keep} == same:
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
    """Exclude outputs of preprocessing, since preprocessing them again would be an unnoticed error."""
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
