"""One subject's raw files: which exist, which can be used, and why the others cannot."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from bhx_model.errors import DataError
from bhx_prep.ingest import metadata, repetition_time
from bhx_prep.io import bids_names

#: Fewer frames than this give no confounds worth the name.
LEAST_FRAMES = 10


@dataclass(frozen=True)
class Scan:
    """One usable image.

    Attributes
    ----------
    zooms : tuple of three floats
        Voxel sizes to trust, mm.
    tr_s : float or None
        Repetition time, s; None for a T1w image.
    """

    path: Path
    entities: dict[str, str]
    sidecar: dict[str, Any]
    zooms: tuple[float, float, float]
    tr_s: float | None = None

    @property
    def stem(self) -> str:
        """``sub-01_ses-a_task-rest``."""
        return bids_names.stem(self.entities["sub"], self.entities)


@dataclass
class RawFiles:
    """What a subject has: one T1w image per session, and the runs of the asked tasks."""

    subject: str
    anats: list[Scan] = field(default_factory=list)
    runs: list[Scan] = field(default_factory=list)
    excluded: list[dict[str, str]] = field(default_factory=list)

    def anat_of(self, run: Scan) -> Scan:
        """The T1w image of the run's session, else the subject's first."""
        session = run.entities.get("ses")
        return next((a for a in self.anats if a.entities.get("ses") == session), self.anats[0])

    def exclude(self, path: Path, reason: str) -> None:
        """Exclude a scan; the status file has the reason."""
        self.excluded.append({"file": path.name, "reason": reason})


def find(root: Path, subject: str, tasks: list[str], tr_s: float | None = None) -> RawFiles:
    """Find a subject's raw BIDS files, and check every one of them.

    Parameters
    ----------
    root : Path
        Raw BIDS dataset.
    subject : str
        Without ``sub-``.
    tasks : list of str
        fMRI tasks to use.
    tr_s : float or None
        Repetition time (s) of runs whose files do not state it.

    Raises
    ------
    DataError
        If there is no usable T1w image, or if there are runs but none can be used.
    """
    files = RawFiles(bids_names.check_label(subject, "subject"))
    folder = root / f"sub-{subject}"
    if not folder.is_dir():
        msg = f"there is no folder {folder}"
        raise DataError(msg)
    sidecars = metadata.Sidecars(root)
    # an image with contrast agent comes last; the index orders them so too
    for path in sorted(_images(folder, "anat", "T1w"), key=lambda p: ("_ce-" in p.name, p)):
        session = bids_names.parse(path.name).get("ses")
        first = next((a for a in files.anats if a.entities.get("ses") == session), None)
        if first is not None:
            files.exclude(path, f"one T1w image of a session is used: {first.path.name}")
        elif (scan := _scan_of(files, path, sidecars, _check_anat)) is not None:
            files.anats.append(scan)
    if not files.anats:
        raise DataError(_why_none(files, "there is no usable T1w image"))
    files.anats.sort(key=lambda scan: scan.path)

    asked = [p for p in _images(folder, "func", "bold") if bids_names.parse(p.name).get("task") in tasks]
    for path in asked:
        scan = _scan_of(files, path, sidecars, lambda path, fields: _check_run(path, fields, tr_s))
        if scan is not None:
            files.runs.append(scan)
    if asked and not files.runs:
        raise DataError(_why_none(files, "there is no usable BOLD run"))
    return files


def read(path: Path) -> tuple[Any, np.ndarray]:
    """Image and its values, all of them.

    Raises
    ------
    DataError
        With a sentence if it cannot be read to its end, or holds no real numbers.
    """
    header = metadata.read_header(path)
    if 0 in header.get_data_shape():
        msg = "the image has no voxels"
        raise DataError(msg)
    try:
        image: Any = nib.load(path)
        values = np.asanyarray(image.dataobj)
    except (
        OSError,
        EOFError,
        ValueError,
        OverflowError,
        zlib.error,
        ImageFileError,
        HeaderDataError,
    ) as error:
        msg = f"the image is damaged or cut short ({type(error).__name__})"
        raise DataError(msg) from error
    return image, values


def _images(folder: Path, kind: str, suffix: str) -> list[Path]:
    places = [folder / kind, *sorted(folder.glob(f"ses-*/{kind}"))]
    return [
        p
        for place in places
        for p in sorted(place.glob(f"*_{suffix}.nii*"))
        if p.name.endswith((".nii", ".nii.gz"))
    ]


def _scan_of(
    files: RawFiles,
    path: Path,
    sidecars: metadata.Sidecars,
    check: Callable[[Path, dict[str, Any]], tuple[Any, Any]],
) -> Scan | None:
    try:
        fields, _ = sidecars.fields_of(path)
        zooms, tr_s = check(path, fields)
    except DataError as error:
        files.exclude(path, str(error))
        return None
    return Scan(path, bids_names.parse(path.name), fields, zooms, tr_s)


def _why_none(files: RawFiles, headline: str) -> str:
    return "; ".join([headline, *(f"{scan['file']}: {scan['reason']}" for scan in files.excluded)])


def _check_anat(path: Path, sidecar: dict[str, Any]) -> tuple[tuple[float, float, float], None]:
    image, values = read(path)
    if values.ndim != 3 and values.shape[3:] != (1,):
        msg = f"the image is {values.ndim}D: expected a 3D volume"
        raise DataError(msg)
    zooms = metadata.voxel_sizes(sidecar, image.header)
    finite = values[np.isfinite(values)]
    if not finite.size or finite.min() == finite.max():
        msg = "the image is empty: all voxels are the same"
        raise DataError(msg)
    return zooms, None


def _check_run(
    path: Path, sidecar: dict[str, Any], tr_s: float | None
) -> tuple[tuple[float, float, float], float]:
    named = bids_names.parse(path.name)
    if "echo" in named:
        msg = "one echo of a multi-echo run: the embedded preprocessing cannot combine echoes, fMRIPrep can"
        raise DataError(msg)
    if named.get("part", "mag") != "mag":
        msg = f"holds the {named['part']} of the signal, not its magnitude"
        raise DataError(msg)
    image, values = read(path)
    frames = metadata.n_frames(image.header)
    if frames < LEAST_FRAMES:
        msg = f"the run has {frames} frames: expected at least {LEAST_FRAMES}"
        raise DataError(msg)
    zooms = metadata.voxel_sizes(sidecar, image.header)
    finite = np.isfinite(values)
    holes = ~finite.all(axis=3)
    # voxels that are never finite are background that some program masked with NaN; they become 0
    if not finite.all() and (finite[holes].any() or holes.all()):
        n = int((~finite).any(axis=(0, 1, 2)).sum())
        msg = f"{n} of {frames} frames have NaN or infinite values"
        raise DataError(msg)
    inside = values[~holes]
    if inside.min() == inside.max():
        msg = "the image is empty: all voxels are the same"
        raise DataError(msg)
    step, _ = repetition_time.choose(
        sidecar, metadata.header_repetition_time(image.header), frames=frames, tr_s=tr_s
    )
    return zooms, step
