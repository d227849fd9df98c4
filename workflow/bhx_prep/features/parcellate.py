"""Mean series per parcel of a BOLD run; volumes, surfaces and CIFTI have a module each."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bhx_model.errors import DataError
from bhx_prep.atlas.atlas import Atlas
from bhx_prep.features.parcel_means import Parcellated
from bhx_prep.features.parcellate_cifti import parcellate_cifti
from bhx_prep.features.parcellate_surface import parcellate_surface
from bhx_prep.features.parcellate_volume import parcellate_volume
from bhx_prep.io.notes import short


def parcellate_file(
    path: Path,
    atlas: Atlas,
    *,
    path_right: Path | None = None,
    mask: Path | None = None,
    min_coverage: float = 0.5,
) -> Parcellated:
    """Mean series per parcel of a BOLD run of any kind.

    Parameters
    ----------
    path : Path
        NIfTI volume series, CIFTI ``.dtseries.nii``, or the left hemisphere's GIfTI or MGH file.
    atlas : Atlas
    path_right : Path, optional
        Right hemisphere of a surface pair.
    mask : Path, optional
        Brain mask on the grid of a volume series.
    min_coverage : float
        Parcels with a smaller share of voxels with signal become rows of NaN.

    Returns
    -------
    Parcellated

    Raises
    ------
    DataError
        With a sentence about what is wrong with the file.
    """
    if path.name.endswith(".dtseries.nii"):
        result = parcellate_cifti(path, atlas)
    elif path.name.endswith((".gii", ".mgz", ".mgh")):
        if path_right is None:
            raise DataError(f"{short(path.name)}: the right hemisphere is missing")
        result = parcellate_surface(path, path_right, atlas)
    elif path.name.endswith((".nii", ".nii.gz")):
        result = parcellate_volume(path, atlas, mask)
    else:
        raise DataError(f"{short(path.name)}: neither NIfTI, CIFTI dtseries, GIfTI nor MGH")
    return _uncovered_to_nan(result, path, min_coverage)


def _uncovered_to_nan(result: Parcellated, path: Path, min_coverage: float) -> Parcellated:
    if not (result.coverage > 0).any():
        msg = f"{short(path.name)} holds no signal: every voxel of the atlas is constant, or not a number"
        raise DataError(msg)
    covered = (result.coverage > 0) & (result.coverage >= min_coverage)
    empty = ~np.isfinite(result.series[covered]).any(axis=0)
    if covered.any() and empty.any():
        msg = f"{short(path.name)}: frame {np.flatnonzero(empty)[0]} (counted from 0) holds no finite value"
        raise DataError(msg)
    covered &= np.isfinite(result.series).all(axis=1)
    refuse_blank_frames(result.series[covered], path)
    return Parcellated(np.where(covered[:, None], result.series, np.float32(np.nan)), result.coverage)


def refuse_blank_frames(series: np.ndarray, path: Path) -> None:
    """Refuse a run in which a frame was lost, or blanked by censoring: all its parcels then have one value.

    Parameters
    ----------
    series : (R, T)
        Of the covered parcels.
    path : Path
        Where they are from.

    Raises
    ------
    DataError
        If there is such a frame.
    """
    if len(series) > 1 and (blank := series.min(axis=0) == series.max(axis=0)).any():
        msg = (
            f"{short(path.name)}: frame {np.flatnonzero(blank)[0]} (counted from 0) has the same value in every parcel: it"
            " was lost or blanked; cut it off with its row of the confounds, or interpolate it"
        )
        raise DataError(msg)
