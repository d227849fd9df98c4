"""One subject's raw files: which exist, which can be used, and why the others cannot."""

from __future__ import annotations

import gzip
import reprlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bhx_model.errors import DataError
from bhx_prep.ingest import metadata
from bhx_prep.io import bids_names
from bhx_prep.io.nifti_header import form_angle, has_orientation, orientation_fault
from bhx_prep.io.notes import Kind, note
from bhx_prep.preproc.arguments import UsableScan
from bhx_prep.preproc.embedded.field_maps import FieldMap, find_field_map
from bhx_prep.preproc.embedded.series import DAMAGED, check_brightness, check_series, damaged
from bhx_prep.preproc.embedded.slice_timing import SliceTimes, slice_times

#: Angle (degrees) between sform and qform from which they are not the same but for rounding.
FORMS_DEG = 1.0
#: Bytes that are inflated at a time.
_CHUNK = 1 << 22
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
    shape : tuple of int
        Voxels of a frame; empty for a T1w image.
    slices : SliceTimes or None
        When the slices of a run's frames were acquired; None where no sidecar states it.
    field_map : FieldMap or None
        What a run's distortion is corrected by.
    notes : tuple of str
        What is not done to a usable run, and why.
    keep : bool
        Somebody decided to keep it, whatever limits of quality it fails.
    """

    path: Path
    entities: dict[str, str]
    sidecar: dict[str, Any]
    zooms: tuple[float, float, float]
    tr_s: float | None = None
    shape: tuple[int, ...] = ()
    slices: SliceTimes | None = None
    field_map: FieldMap | None = None
    notes: tuple[str, ...] = ()
    keep: bool = False

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
    asked: int = 0  # runs, whether or not they can be used
    excluded: list[dict[str, str]] = field(default_factory=list)

    def anat_of(self, run: Scan) -> Scan:
        """The T1w image of the run's session, else the subject's first."""
        session = run.entities.get("ses")
        return next((a for a in self.anats if a.entities.get("ses") == session), self.anats[0])

    def keep(self, names: Collection[str]) -> None:
        """Mark the scans of these file names as kept by a decision."""
        for scans in (self.anats, self.runs):
            scans[:] = [replace(scan, keep=scan.path.name in names) for scan in scans]

    def exclude(self, path: Path, reason: str) -> None:
        """Exclude a scan; the status file has the reason."""
        self.excluded.append({"file": path.name, "reason": reason})


def find(root: Path, subject: str, scans: Sequence[UsableScan]) -> RawFiles:
    """Check a subject's raw files: those that the index chose, every one of them to its end.

    Parameters
    ----------
    root : Path
        Raw BIDS dataset.
    subject : str
        Without ``sub-``.
    scans : sequence of UsableScan
        From `usable_scans`.

    Raises
    ------
    DataError
        If there is no usable T1w image. A subject whose runs cannot be used keeps its T1w image.
    """
    files = RawFiles(bids_names.check_label(subject, "subject"))
    folder = root / f"sub-{subject}"
    if not folder.is_dir():
        msg = f"there is no folder {folder}"
        raise DataError(msg)
    sidecars = metadata.Sidecars(root)
    for given in sorted(scans, key=lambda scan: scan.path):
        if bids_names.suffix(given.path.name) == "T1w":
            if (scan := _scan_of(files, given, sidecars, _check_anat)) is not None:
                files.anats.append(scan)
        else:
            files.asked += 1
            if (scan := _scan_of(files, given, sidecars, _check_run)) is not None:
                files.runs.append(_with_field_map(scan, root, sidecars))
    if not files.anats:
        excluded = (f"{scan['file']}: {scan['reason']}" for scan in files.excluded)
        raise DataError("; ".join(["there is no usable T1w image", *excluded]))
    return files


def read(path: Path) -> tuple[Any, np.ndarray]:
    """Image and its values, all of them: (X, Y, Z) or (X, Y, Z, T).

    Raises
    ------
    DataError
        With a sentence if it cannot be read to its end, or holds no real numbers.
    """
    image = _open(path)
    try:
        values = np.asanyarray(image.dataobj)
    except DAMAGED as error:
        raise damaged(error) from error
    return image, values


def _open(path: Path) -> Any:
    header = metadata.read_header(path)
    if 0 in header.get_data_shape():
        msg = "the image has no voxels"
        raise DataError(msg)
    _check_gzip(path)
    try:
        # one open file: reading a frame goes on where the one before ended, also in a compressed file
        return nib.load(path, keep_file_open=True)
    except DAMAGED as error:
        raise damaged(error) from error


def _check_gzip(path: Path) -> None:
    """Read a compressed file to its end, where its checksum and length stand: nibabel does not look.

    Raises
    ------
    DataError
        If they are not those of its content.
    """
    if not path.name.endswith(".gz"):
        return
    try:
        with gzip.open(path) as file:
            while file.read(_CHUNK):
                pass
    except DAMAGED as error:
        # what follows the end is another matter: programs that write to tapes or blocks leave some
        if not (isinstance(error, gzip.BadGzipFile) and str(error).startswith("Not a gzipped file")):
            raise damaged(error) from error


def _scan_of(
    files: RawFiles,
    given: UsableScan,
    sidecars: metadata.Sidecars,
    check: Callable[[UsableScan, dict[str, Any]], dict[str, Any]],
) -> Scan | None:
    try:
        fields, _ = sidecars.fields_of(given.path)
        found = check(given, fields)
    except DataError as error:
        files.exclude(given.path, str(error))
        return None
    return Scan(given.path, bids_names.parse(given.path.name), fields, **found)


def _with_field_map(run: Scan, root: Path, sidecars: metadata.Sidecars) -> Scan:
    found, missing = find_field_map(root, run.path, run.sidecar, run.shape, sidecars)
    return replace(run, field_map=found, notes=(*run.notes, *([missing] if missing else [])))


def _check_anat(given: UsableScan, sidecar: dict[str, Any]) -> dict[str, Any]:
    image, values = read(given.path)
    if values.ndim != 3 and values.shape[3:] != (1,):
        msg = f"the image is {values.ndim}D: expected a 3D volume"
        raise DataError(msg)
    zooms = metadata.voxel_sizes(sidecar, image.header)
    finite = values[np.isfinite(values)]
    if not finite.size or finite.min() == finite.max():
        msg = "the image is empty: all voxels are the same"
        raise DataError(msg)
    check_brightness(float(finite.mean(dtype=np.float64)), float(finite.std(dtype=np.float64)))
    return {"zooms": zooms, "notes": _orientation(image.header)}


def _orientation(header: Any) -> tuple[str, ...]:
    """Assumptions on the orientation of an image.

    Raises
    ------
    DataError
        If its header contradicts itself.
    """
    if (fault := orientation_fault(header)) is not None:
        raise DataError(fault)
    if (angle := form_angle(header)) > FORMS_DEG:
        names = ["".join(nib.aff2axcodes(form)) for form in (header.get_sform(), header.get_qform())]
        said = f"the header's sform ({names[0]}) and qform ({names[1]}) differ by {angle:.0f} degrees, sform was used"
        return (note(Kind.ORIENTATION, said),)
    if has_orientation(header):
        return ()
    return (
        note(
            Kind.ORIENTATION, "the header has no sform and no qform, rows are taken to run from right to left"
        ),
    )


def _check_run(given: UsableScan, sidecar: dict[str, Any]) -> dict[str, Any]:
    if given.echoes is not None:
        msg = "one echo of a multi-echo run: the embedded preprocessing cannot combine echoes, fMRIPrep can"
        raise DataError(msg)
    image = _open(given.path)
    frames = metadata.n_frames(image.header)
    if frames < LEAST_FRAMES:
        msg = f"the run has {frames} frames: expected at least {LEAST_FRAMES}"
        raise DataError(msg)
    zooms = metadata.voxel_sizes(sidecar, image.header)
    slices, notes = None, [*_orientation(image.header)]
    corrected = sidecar.get("SliceTimingCorrected")
    if corrected not in (None, True, False):
        msg = f"SliceTimingCorrected in the sidecar is {reprlib.repr(corrected)}: expected true or false"
        raise DataError(msg)
    if corrected:
        notes.append(note(Kind.SLICES, "its sidecar says that it is corrected"))
    elif given.tr_s is not None:
        slices = slice_times(sidecar, image.shape, given.tr_s)
        if slices is None:
            notes.append(note(Kind.SLICES, "its sidecar has no SliceTiming"))
    check_series(image)
    found = {"zooms": zooms, "tr_s": given.tr_s, "shape": image.shape[:3]}
    return {**found, "slices": slices, "notes": tuple(notes)}
