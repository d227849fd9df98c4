"""Rows of the index for ``input: fmriprep``: fMRIPrep's derivatives, volumes or surfaces."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from bhx_model.errors import DataError
from bhx_prep.ingest import metadata
from bhx_prep.ingest.anat import choose_t1w, link_anat
from bhx_prep.ingest.bids_files import File, files_of_subjects
from bhx_prep.ingest.choice import Choice, note_reconstructions
from bhx_prep.ingest.rows import (
    IMAGES,
    Row,
    add_note,
    best,
    check_name,
    check_volume,
    exclude,
    fill_repetition_time,
    new_row,
    no_bold,
    resolution_rank,
    sample_key,
)
from bhx_prep.io import bids_names, notes
from bhx_prep.io.spaces import SURFACES, is_space, space_of

# suffix of outputs before fMRIPrep 1.2
_OLD: Final = "preproc"
# outputs that hold the preprocessed series; surfaces have none of the names `desc`
_DESC: Final = ("preproc", None)


def list_rows(
    start: Row,
    root: Path,
    labels: Sequence[str],
    tasks: Sequence[str] | None,
    tr_s: float | None,
    tr: str | None = None,
    choice: Choice | None = None,
) -> Iterator[Row]:
    """Rows of some subjects of fMRIPrep's derivatives.

    Parameters
    ----------
    start : dict
        Fields that all rows of the cohort share.
    root : Path
        Absolute.
    labels : sequence of str
        Subjects, without ``sub-``.
    tasks : sequence of str or None
        fMRI tasks to list; all when None.
    tr_s, tr
        The cohort's, see `repetition_time.choose`.
    choice : Choice, optional
        What decides among files; its space is that of the BOLD outputs to list.

    Yields
    ------
    dict
        A row per T1w image and BOLD run.
    """
    choice = choice or Choice(start["cohort"], root)
    sidecars = metadata.Sidecars(root)
    suffixes = ("bold", "T1w", "mask", "timeseries", "regressors", _OLD)
    endings = (*IMAGES, ".func.gii", ".dtseries.nii", ".tsv")
    for label, files in files_of_subjects(root, labels, suffixes, endings):
        mine = {**start, "subject": label}
        anats = choose_t1w({**mine, "kind": "volume"}, files, sidecars, choice)
        yield from anats
        runs: dict[str, list[File]] = defaultdict(list)
        for file in files:
            if "task" in file.entities and "echo" not in file.entities:
                runs[bids_names.same_scan(sample_key(start["cohort"], label, file.entities))].append(file)
        expected = {
            key: run
            for key, run in runs.items()
            if any(f.suffix == "bold" or _is_confounds(f) for f in run)
            and (tasks is None or run[0].entities["task"] in tasks)
        }
        if not expected:
            yield _nothing_preprocessed(mine, tasks, files, runs)
        rows = []
        for run in expected.values():
            for row in _preprocessed_run({**mine, "space": choice.space}, run, sidecars, tr_s, tr, choice):
                link_anat(row, anats)
                rows.append(row)
        choice.prefer_runs(rows)
        note_reconstructions(rows)
        yield from rows


def _nothing_preprocessed(
    start: Row, tasks: Sequence[str] | None, files: list[File], runs: dict[str, list[File]]
) -> Row:
    """The row of a subject without a wanted run: what there is of that task, if there is anything."""
    old = next((f for f in files if f.suffix == _OLD and "task" in f.entities), None)
    wanted = [run[0] for run in runs.values() if tasks is None or run[0].entities["task"] in tasks]
    if old is None and not wanted:
        return no_bold(start, tasks or (), {run[0].entities["task"] for run in runs.values()})
    file = old or wanted[0]
    row = new_row({**start, "kind": "volume"}, "bold", file.entities, file.path)
    if old is not None:
        exclude(
            row, "named as by fMRIPrep before 1.2 (.._bold_space-.._preproc): rename it, or preprocess anew"
        )
    elif file.suffix == "timeseries":
        other = "`layout: abcd`" if file.ending != ".tsv" else "`input: timeseries`"
        exclude(row, f"{notes.short(file.path.name)} is no BOLD of fMRIPrep's: is this {other}?")
    else:
        exclude(row, f"no BOLD of this run, there is: {notes.short(file.path.name)}")
    return row


def _preprocessed_run(
    start: Row,
    run: list[File],
    sidecars: metadata.Sidecars,
    tr_s: float | None,
    tr: str | None,
    choice: Choice,
) -> Iterator[Row]:
    """The row of one run in the wanted space; several where files contradict each other."""
    keys = [sample_key(start["cohort"], start["subject"], run[0].entities)]
    there = [f for f in run if f.suffix == "bold"]
    left_out = {f.path: choice.left_out(f.path, keys) or choice.not_selected(f.entities) for f in there}
    kept = [f for f in there if left_out[f.path] is None]
    kind, bolds = _in_space(kept, choice)
    others = _in_space(there, choice)[1] if len(kept) < len(there) and not bolds else []
    if others:
        row = new_row({**start, "kind": kind}, "bold", others[0][0].entities, others[0][0].path)
        exclude(row, left_out[others[0][0].path] or "left out")
        yield row
        return
    confounds = _confounds([f for f in run if _is_confounds(f) and choice.left_out(f.path) is None])
    if not bolds:
        row = new_row({**start, "kind": kind}, "bold", run[0].entities)
        exclude(row, _without_bold(start["space"], run, there))
        yield row
        return
    for left, right in bolds:
        row = new_row({**start, "kind": kind}, "bold", left.entities, left.path)
        check_name(row, left)
        if not choice.own:
            _note_resolutions(row, left, kept)
        if kind == "volume":
            check_volume(row, left.path, sidecars, tr_s, tr)
            if row.get("tr_s") == 1 and row["sidecar"] is None and tr is None and tr_s is None:
                detail = "1 s of the image header, without a sidecar: fMRIPrep 23.2.0 wrote that for any"
                add_note(row, notes.Kind.TR, detail)
            masks = [f for f in run if f.suffix == "mask" and f.entities.get("desc") == "brain"]
            row["mask"] = next((str(f.path) for f in masks if f.grid == left.grid), None)
            if row["mask"] is None:
                add_note(
                    row, notes.Kind.MASK, "parcels are covered where its voxels vary, in the brain or not"
                )
        elif kind == "gifti":
            _check_gifti(row, left, right, run, sidecars, tr_s, tr)
        else:
            _check_cifti(row, left.path, sidecars, tr_s, tr)
        if confounds:
            row["confounds"] = str(confounds[0].path)
            if len(confounds) > 1:
                detail = f"confounds of {len(confounds)} tables: {confounds[0].path.name}"
                add_note(row, notes.Kind.CHOICE, detail)
            try:
                metadata.check_file(confounds[0].path)
            except DataError as error:
                exclude(row, f"confounds table: {error}")
        elif not choice.denoised:
            exclude(row, "no confounds table (.._desc-confounds_timeseries.tsv)")
        yield row


def _without_bold(space: str, run: list[File], bolds: list[File]) -> str:
    """Why a run has no BOLD in the wanted space, and what there is of it."""
    spaces = sorted({space_of(f.entities) or "native" for f in bolds if f.entities.get("desc") in _DESC})
    found = f"; there is: {', '.join(spaces)}" if spaces else ""
    found += " (the cohort's `space` chooses)" if any(map(is_space, spaces)) else ""
    others = {str(f.entities["desc"]) for f in bolds if "desc" in f.entities} - {"preproc"}
    if others and not spaces:
        listed = ", ".join(f"desc-{desc}" for desc in sorted(others)[:4])
        found = f" of desc-preproc; there is: {listed}: `select` (desc) and `strategy: none` take denoised outputs"
    made = any(f.entities.keys() & {"space", "desc"} for f in run)
    return f"no BOLD in space {space}{found}{'' if made else ': for raw data use `input: bids`'}"


def _is_confounds(file: File) -> bool:
    return file.suffix in ("timeseries", "regressors") and file.entities.get("desc") == "confounds"


def _confounds(tables: list[File]) -> list[File]:
    """Tables of confounds, the one to use first: ``_timeseries`` has replaced ``_regressors`` in fMRIPrep 20.2."""
    return sorted(tables, key=lambda f: f.suffix != "timeseries")


def _in_space(bolds: list[File], choice: Choice) -> tuple[str, list[tuple[File, File | None]]]:
    """Kind of a run's BOLD in a space, and the images (with their right hemisphere); normally one."""
    surface = choice.space in SURFACES
    wanted = choice.select.get("desc") or (_DESC if surface else _DESC[:1])
    bolds = [f for f in bolds if space_of(f.entities) == choice.space and _is_signal(f)]
    bolds = [f for f in bolds if f.entities.get("desc") in wanted]
    if not surface:
        volumes = [f for f in bolds if f.ending in IMAGES]
        return "volume", [(f, None) for f in _best(volumes, choice, resolution_rank)]
    ciftis = [f for f in bolds if f.ending == ".dtseries.nii"]
    if ciftis:
        taken = _best(ciftis, choice, lambda f: f.entities.get("den", "91k") != "91k")
        return "cifti", [(f, None) for f in taken]
    hemispheres = [
        [f for f in bolds if f.ending == ".func.gii" and f.entities.get("hemi") == h] for h in "LR"
    ]
    lefts, rights = (
        _best(files, choice, lambda f: f.entities.get("den", "32k") != "32k") for files in hemispheres
    )
    if not lefts:
        lefts, rights = rights, []
    return "gifti", [(left, rights[i] if i < len(rights) else None) for i, left in enumerate(lefts)]


def _is_signal(file: File) -> bool:
    return file.entities.get("part", "mag") == "mag"


def _best(files: list[File], choice: Choice, rank: Callable[[File], Any]) -> list[File]:
    """The files that `prefer` puts first, and of these those that the default does."""
    return best(files, lambda f: (choice.rank(f.entities, ("res", "den", "desc")), rank(f)))


def _note_resolutions(row: Row, taken: File, files: list[File]) -> None:
    """Note that the run exists in more than one resolution."""
    same = [f for f in files if space_of(f.entities) == space_of(taken.entities) and f.ending == taken.ending]
    same = [f for f in same if all(f.entities.get(e) == taken.entities.get(e) for e in ("desc", "hemi"))]
    entity = "den" if row["kind"] != "volume" else "res"
    found = {f.entities.get(entity) for f in same}
    if len(found) > 1:
        label = f"{entity}-{taken.entities[entity]}" if entity in taken.entities else f"no {entity}-"
        add_note(row, notes.Kind.CHOICE, f"{label}, of {len(found)} resolutions of this run")


def _check_gifti(
    row: Row,
    left: File,
    right: File | None,
    run: list[File],
    sidecars: metadata.Sidecars,
    tr_s: float | None,
    tr: str | None,
) -> None:
    """Fill in frames and repetition time of a pair of GIfTI files."""
    if right is None:
        side = "right" if left.entities["hemi"] == "L" else "left"
        exclude(row, f"the {side} hemisphere is missing")
    else:
        row["path_right"] = str(right.path)
    frames = []
    for file in filter(None, (left, right)):
        try:
            frames.append(metadata.read_gifti_frames(file.path))
        except DataError as error:
            exclude(row, f"hemisphere {file.entities['hemi']}: {error}")
    if len(set(frames)) > 1:
        exclude(row, f"the hemispheres have {frames[0]} and {frames[1]} frames")
    row["n_frames"] = frames[0] if frames else None
    # early versions wrote no sidecar for surfaces, but the run's other outputs have the same repetition time
    for file in (left, *(f for f in run if f.suffix == "bold")):
        try:
            fields, _ = sidecars.fields_of(file.path)
        except DataError:  # a reason below, if it is the file's own
            continue
        if "RepetitionTime" in fields:
            fill_repetition_time(row, file.path, sidecars, None, tr_s, tr)
            return
    fill_repetition_time(row, left.path, sidecars, None, tr_s, tr)


def _check_cifti(
    row: Row, path: Path, sidecars: metadata.Sidecars, tr_s: float | None, tr: str | None
) -> None:
    """Fill in frames and repetition time of a CIFTI series."""
    measured = None
    try:
        row["n_frames"], measured = metadata.read_cifti_series(path)
    except DataError as error:
        exclude(row, str(error))
    fill_repetition_time(row, path, sidecars, measured, tr_s, tr)
