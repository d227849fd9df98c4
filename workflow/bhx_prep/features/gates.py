"""Numbers of quality of what preprocessing made, by the functions and limits of the embedded workflow."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from bhx_model.data.t1w import voxel_sizes
from bhx_model.errors import DataError, SiteError
from bhx_prep.features.t1w import read_pair
from bhx_prep.io import bids_names
from bhx_prep.quality import bold, t1w
from bhx_prep.review import quality_file, scan_files

#: Numbers of each modality that have a limit and are columns of the quality control.
COLUMNS: Final = {
    "t1w": ("brain_volume_ml", "cut_cm2", "missing_share", "tissue_contrast"),
    "bold": ("coreg_dice", "coreg_overlap", "coreg_likeness"),
}

Numbers = dict[str, float | None]
Files = tuple[Path, Path | None]


def of_t1w(files: Files, template: tuple[Path, Path]) -> Numbers:
    """Quality measures of a T1w volume in standard space, and of its native head if that is in the same folder.

    Parameters
    ----------
    files : tuple of Path
        Volume, and its brain mask if it is not skull-stripped.
    template : tuple of Path
        Head and its brain mask.

    Raises
    ------
    DataError
        If an image cannot be read.
    SiteError
        If the template cannot.
    """
    head, inside = _template(*template)
    values, mask = _on_grid(*files)
    numbers: Numbers = {"tissue_contrast": t1w.tissue_contrast(values, mask, head, inside)}
    stem = quality_file.stem_of(files[0])
    own, own_mask = (
        files[0].with_name(f"{stem}_desc-{what}.nii.gz") for what in ("preproc_T1w", "brain_mask")
    )
    if own != files[0] and own.is_file() and own_mask.is_file():
        data, affine, its_mask = read_pair(own, own_mask)
        if its_mask is not None:
            numbers |= t1w.of_head(np.nan_to_num(data), np.nan_to_num(its_mask) > 0.5, affine)
    return numbers


def of_bold(files: Files, anat: Files, template: tuple[Path, Path]) -> Numbers:
    """Quality measures of a run in standard space against its T1w volume; none without a reference image of the run.

    Parameters
    ----------
    files, anat : tuple of Path
        Image and its brain mask, if there is one, of the run and of its T1w image.
    template : tuple of Path
        Head and its brain mask.

    Raises
    ------
    DataError
        If an image cannot be read.
    SiteError
        If the template cannot.
    """
    spaces = {bids_names.parse(path.name).get("space") for path in (files[0], anat[0])}
    if len(spaces) > 1:
        return {}  # templates differ by millimetres, which is what the folds of a head show
    picture = scan_files.bold_reference(*files)
    if picture is None:
        return {}
    head, inside = _template(*template)
    values, mask = _on_grid(*anat)
    found = bold.of_standard(
        picture.image.values,
        None if picture.mask is None else picture.mask.values > 0.5,
        picture.image.affine,
        bold.Anatomy(values, mask, head, inside, bold.AFFINE),
        float(voxel_sizes(scan_files.measured_affine(files[0], picture.image.affine)).max()),
    )
    return {name: found[name] for name in COLUMNS["bold"]}


@cache
def _template(head: Path, mask: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        return _on_grid(head, mask)
    except DataError as error:  # no scan's fault
        raise SiteError(f"the template head cannot be used ({error}): fetch the templates again") from error


def _on_grid(path: Path, mask: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Values and brain on the grid of the comparison."""
    data, affine, inside = read_pair(path, mask)
    brain = np.nan_to_num(data) != 0 if inside is None else np.nan_to_num(inside) > 0.5
    return (
        bold.to_comparison_grid(data, affine),
        bold.to_comparison_grid(brain.astype(np.float32), affine) > 0.5,
    )
