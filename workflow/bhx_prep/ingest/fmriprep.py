"""Rows of the index at ``input: fmriprep``: fMRIPrep's derivatives, in a volume or on the surface."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from bhx_model.errors import DataError
from bhx_prep.ingest import metadata
from bhx_prep.ingest.anat import ANAT_SPACE, choose_t1w, link_anat
from bhx_prep.ingest.bids_files import File, files_of_subjects
from bhx_prep.ingest.rows import (
    IMAGES,
    Row,
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


def list_rows(
    start: Row,
    root: Path,
    labels: Sequence[str],
    tasks: Sequence[str] | None,
    tr_s: float | None,
    space: str,
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
    tr_s : float or None
        Repetition time (s) of runs whose files do not state it.
    space : str
        Which of the BOLD outputs to list.

    Yields
    ------
    dict
        A row per T1w image and BOLD run.
    """
    sidecars = metadata.Sidecars(root)
    suffixes = ("bold", "T1w", "mask", "timeseries", "regressors")
    endings = (*IMAGES, ".func.gii", ".dtseries.nii", ".tsv")
    for label, files in files_of_subjects(root, labels, suffixes, endings):
        mine = {**start, "subject": label}
        anats = choose_t1w({**mine, "kind": "volume"}, files, sidecars, space=ANAT_SPACE)
        yield from anats
        runs: dict[str, list[File]] = defaultdict(list)
        for file in files:
            if "task" in file.entities and "echo" not in file.entities:
                runs[sample_key(start["cohort"], label, file.entities)].append(file)
        expected = {
            key: run
            for key, run in runs.items()
            if any(f.suffix == "bold" or _is_confounds(f) for f in run)
            and (tasks is None or run[0].entities["task"] in tasks)
        }
        if not expected:
            yield no_bold(mine, tasks or (), {run[0].entities["task"] for run in runs.values()})
        for run in expected.values():
            for row in _preprocessed_run({**mine, "space": space}, run, sidecars, tr_s):
                link_anat(row, anats)
                yield row


def _preprocessed_run(
    start: Row, run: list[File], sidecars: metadata.Sidecars, tr_s: float | None
) -> Iterator[Row]:
    """The row of one run in the wanted space; several where files contradict each other."""
    space = start["space"]
    kind, bolds = _in_space([f for f in run if f.suffix == "bold"], space)
    confounds = [f for f in run if _is_confounds(f)]
    if not bolds:
        row = new_row({**start, "kind": kind}, "bold", run[0].entities)
        others = sorted(
            {
                f.entities.get("space", "native")
                for f in run
                if f.suffix == "bold" and f.entities.get("desc", "preproc") == "preproc"
            }
        )
        there = f"; there is: {', '.join(others)}" if others else ""
        made = any(f.entities.keys() & {"space", "desc"} for f in run)
        exclude(row, f"no BOLD in space {space}{there}{'' if made else ': for raw data use `input: bids`'}")
        yield row
        return
    for left, right in bolds:
        row = new_row({**start, "kind": kind}, "bold", left.entities, left.path)
        check_name(row, left)
        if kind == "volume":
            check_volume(row, left.path, sidecars, tr_s)
            masks = [f for f in run if f.suffix == "mask" and f.entities.get("desc") == "brain"]
            row["mask"] = next((str(f.path) for f in masks if f.grid == left.grid), None)
        elif kind == "gifti":
            _check_gifti(row, left, right, run, sidecars, tr_s)
        else:
            _check_cifti(row, left.path, sidecars, tr_s)
        if confounds:
            row["confounds"] = str(confounds[0].path)
            try:
                metadata.check_file(confounds[0].path)
            except DataError as error:
                exclude(row, f"confounds table: {error}")
        else:
            exclude(row, "no confounds table (.._desc-confounds_timeseries.tsv)")
        yield row


def _is_confounds(file: File) -> bool:
    return file.suffix in ("timeseries", "regressors") and file.entities.get("desc") == "confounds"


def _in_space(bolds: list[File], space: str) -> tuple[str, list[tuple[File, File | None]]]:
    """Kind of a run's BOLD in a space, and the images (with their right hemisphere); normally one."""
    bolds = [f for f in bolds if f.entities.get("space") == space]
    if space.startswith("MNI"):
        volumes = [f for f in bolds if f.entities.get("desc") == "preproc" and f.ending in IMAGES]
        return "volume", [(f, None) for f in best(volumes, resolution_rank)]
    ciftis = [f for f in bolds if f.ending == ".dtseries.nii"]
    if ciftis:
        return "cifti", [(f, None) for f in best(ciftis, lambda f: f.entities.get("den", "91k") != "91k")]
    hemispheres = [
        [f for f in bolds if f.ending == ".func.gii" and f.entities.get("hemi") == h] for h in "LR"
    ]
    lefts, rights = (best(files, lambda f: f.entities.get("den", "32k") != "32k") for files in hemispheres)
    if not lefts:
        lefts, rights = rights, []
    return "gifti", [(left, rights[i] if i < len(rights) else None) for i, left in enumerate(lefts)]


def _check_gifti(
    row: Row, left: File, right: File | None, run: list[File], sidecars: metadata.Sidecars, tr_s: float | None
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
            fill_repetition_time(row, file.path, sidecars, None, tr_s)
            return
    fill_repetition_time(row, left.path, sidecars, None, tr_s)


def _check_cifti(row: Row, path: Path, sidecars: metadata.Sidecars, tr_s: float | None) -> None:
    """Fill in frames and repetition time of a CIFTI series."""
    measured = None
    try:
        row["n_frames"], measured = metadata.read_cifti_series(path)
    except DataError as error:
        exclude(row, str(error))
    fill_repetition_time(row, path, sidecars, measured, tr_s)
