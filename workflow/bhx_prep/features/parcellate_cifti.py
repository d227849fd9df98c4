"""Mean series per parcel of a dense CIFTI series, read by memory map."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bhx_model.errors import DataError
from bhx_prep.atlas.atlas import Atlas
from bhx_prep.features.parcel_means import Parcellated, mean_rows
from bhx_prep.io import cifti
from bhx_prep.io.meshes import GRAYORDINATES_AFFINE, GRAYORDINATES_CORTEX
from bhx_prep.io.notes import short


def parcellate_cifti(path: Path, atlas: Atlas) -> Parcellated:
    """Mean series per parcel of a dense series (``.dtseries.nii``) on fsLR-32k.

    Raises
    ------
    DataError
        If it has no such series.
    """
    axes, rows = cifti.read_series(path)
    labels = np.zeros(rows.shape[0], np.int16)
    total = np.zeros(atlas.n_rois + 1, np.int64)
    hemispheres = dict(zip(cifti.CORTEX, atlas.surface("fsLR"), strict=True))
    for part in axes.surfaces:
        its = hemispheres[part.structure]
        if part.n_vertices != its.size:
            msg = f"{short(path.name)}: {part.structure} is a mesh of {part.n_vertices} vertices, fsLR-32k has {its.size}"
            raise DataError(msg)
        labels[part.offset : part.offset + part.vertices.size] = its[part.vertices]
        total += np.bincount(its, minlength=total.size)
    sizes = {part.structure: part.vertices.size for part in axes.surfaces}
    if tuple(sizes.get(side) for side in cifti.CORTEX) == GRAYORDINATES_CORTEX[::-1]:
        msg = f"{short(path.name)}: its left cortex has the vertices of the right one: the hemispheres are swapped"
        raise DataError(msg)
    if not axes.surfaces:
        msg = f"{short(path.name)} has no cortical surface among its brain models"
        raise DataError(msg)
    if atlas.subcortical and axes.grid:
        its, (shape, affine) = atlas.voxels(), axes.grid
        if shape != its.shape or not np.allclose(affine, GRAYORDINATES_AFFINE):
            msg = f"{short(path.name)}: its voxels are not those of the 91k grayordinates, on which the subcortex is known"
            raise DataError(msg)
        for offset, index in axes.voxels:
            labels[offset : offset + len(index)] = its[tuple(index.T)]
        total += np.bincount(its.ravel(), minlength=total.size)
    series = np.full((atlas.n_rois, rows.shape[1]), np.nan, np.float32)
    coverage = np.zeros(atlas.n_rois, np.float32)
    mean_rows(rows, labels, series, coverage)
    # vertices of a parcel that the file does not hold lower its coverage
    present = np.bincount(labels, minlength=total.size)
    coverage *= (present / np.maximum(total, 1))[1:].astype(np.float32)
    return Parcellated(series, coverage)
