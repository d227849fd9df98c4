"""Find the files that belong to a scan in its derivatives, under fMRIPrep's names."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from bhx_model.errors import DataError, SiteError
from bhx_prep.io import bids_names
from bhx_prep.io.images import load_image, read_image
from bhx_prep.io.spaces import MNI152
from bhx_prep.review import quality_file
from bhx_prep.review.drawings import Brain, Template
from bhx_prep.review.panels import Volume

#: Label of white matter in ``dseg`` of fMRIPrep: FAST's and BIDS's order is GM, WM, CSF.
_WHITE_LABEL: Final = 2
#: Frames that a reference is averaged over where there is none.
_FRAMES: Final = slice(4, 12)


def is_standard(path: Path) -> bool:
    """Whether an output's name states a space that the template's brain is in."""
    return bids_names.parse(path.name).get("space") in MNI152


def template(folder: Path) -> Template:
    """The head that everything is compared with, of the folder of templates.

    Raises
    ------
    SiteError
        If it cannot be read.
    """
    try:
        head, mask = (
            Volume(*read_image(folder / f"head_{name}.nii.gz", np.float32)) for name in ("T1w", "mask")
        )
    except DataError as error:  # no scan's fault
        raise SiteError(f"the template head cannot be used ({error}): fetch the templates again") from error
    return Template(head, mask)


def t1w(path: Path, mask: Path | None) -> Brain:
    """A T1w in standard space.

    Raises
    ------
    DataError
        If its image or mask cannot be read.
    """
    return Brain(_volume(path), None if mask is None else _volume(mask))


def bold_reference(path: Path, mask: Path | None) -> Brain | None:
    """The BOLD reference of a run in standard space: fMRIPrep's, else a mean of frames; None where there is neither.

    Raises
    ------
    DataError
        If an image cannot be read.
    """
    if path.name.endswith("_desc-preproc_bold.nii.gz") and is_standard(path):
        reference = path.with_name(path.name.replace("_desc-preproc_bold", "_boldref"))
        image = _volume(reference) if reference.is_file() else _mean(path)
        return Brain(image, None if mask is None else _volume(mask))
    # of a run on a surface: in the volume, if it was asked for
    for space in MNI152:
        for reference in sorted(
            path.parent.glob(f"{quality_file.stem_of(path)}_space-{space}*_boldref.nii.gz")
        ):
            own = reference.with_name(reference.name.replace("_boldref", "_desc-brain_mask"))
            return Brain(_volume(reference), _volume(own) if own.is_file() else None)
    return None


def measured_affine(path: Path, standard: np.ndarray) -> np.ndarray:
    """Affine, (4, 4), of the grid that a run was measured on, if its reference there exists; else `standard`.

    Raises
    ------
    DataError
        If the reference cannot be read.
    """
    reference = path.with_name(f"{quality_file.stem_of(path)}_desc-hmc_boldref.nii.gz")
    return _volume(reference).affine if reference.is_file() else standard


def white_matter(path: Path) -> Volume | None:
    """Mask of the white matter of a T1w in standard space, by its segmentation; None where there is none."""
    segmentation = path.with_name(path.name.replace("_desc-preproc_T1w", "_dseg"))
    if segmentation == path or not segmentation.is_file():
        return None
    labels = _volume(segmentation)
    return Volume((np.rint(labels.values) == _WHITE_LABEL).astype(np.float32), labels.affine)


def _volume(path: Path) -> Volume:
    values, affine = read_image(path, np.float32)
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3 or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise DataError(f"{path.name} cannot be drawn: it has {values.ndim} axes, or no place in space")
    return Volume(values, affine)


def _mean(path: Path) -> Volume:
    """Mean of some frames, of which only the beginning of the file is read."""
    image = load_image(path)
    try:
        frames = np.asarray(image.dataobj[..., _FRAMES] if image.shape[-1] > _FRAMES.stop else image.dataobj)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path.name} cannot be drawn ({type(error).__name__})") from error
    return Volume(frames.mean(axis=-1, dtype=np.float32), np.asarray(image.affine))
