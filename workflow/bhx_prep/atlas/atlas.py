"""The atlas: the labels of one parcellation on every grid for which they are known.

Labels are 1..R in the order of ``names``, whatever order the source has; 0 is no parcel.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from bhx_model.contract import roi_sha256
from bhx_model.errors import ConfigError, DataError
from bhx_prep.atlas import resample
from bhx_prep.io.images import load_image
from bhx_prep.io.reading import reading

#: Standard space of the volume, if nothing else is specified.
DEFAULT_SPACE: Final = "MNI152NLin2009cAsym"

#: File of each grid in the template folder.
FILES: Final = {
    "volume": "atlas_volume.nii.gz",
    "fsLR": "atlas_fsLR.npz",
    "fsaverage5": "atlas_fsaverage5.npz",
}

#: Share of the parcels that must have a voxel on a run's grid; below it the atlas lies in another space.
MIN_PARCELS_ON_GRID: Final = 0.5

_HEMISPHERE = re.compile(r"(?:^|[_-])([LR])H(?:[_-]|$)", re.IGNORECASE)
#: Sides in names of other atlases: ``lh.V1``, ``ctx-lh-cuneus``, ``Left-Thalamus``, ``L_V1_ROI``, ``Precentral_L``.
SIDE: Final = re.compile(
    r"(?:^|(?<=[^A-Za-z0-9]))(?:left|right|lh|rh)(?=$|[^A-Za-z0-9])|^[lr](?=[^A-Za-z0-9])|(?<=[^A-Za-z0-9])[lr]$",
    re.IGNORECASE,
)

Pair = tuple[np.ndarray, np.ndarray]


@dataclass
class Atlas:
    """One atlas on each of the grids on which it is known.

    Arrays come with it, or are read from its folder when first used; resampled grids are kept for later runs.

    Attributes
    ----------
    label : str
        Name in files and shards, e.g. ``Schaefer17n400p``.
    names : tuple of str
        ROI names, R of them; position i is label i + 1 everywhere.
    space : str
        Standard space of the volume.
    subcortical : tuple of int
        Labels that no surface has, rising.
    hemisphere : tuple of int
        0 (left), 1 (right) or -1 (not known) for every ROI; empty before it was looked for.
    folder : Path or None
        Holds the files of `FILES` that are there.
    source : str
        Where it came from, in words.
    missing : dict
        File name to a sentence that says why it is not there.
    inputs : tuple of Path
        Files that were read.
    volume_file : str
        Its volume in `folder`.
    labels_volume : tuple of (X, Y, Z) int16 and affine (4, 4), or None
    other_volumes : dict
        Further standard space to the volume there.
    labels_surface : dict
        Mesh (``fsLR``, ``fsaverage5``) to left and right int16 labels of its vertices.
    labels_voxels : numpy.ndarray of int16, or None
        Labels of the subcortex on the voxels of the 91k grayordinates, (91, 109, 91).
    """

    label: str
    names: tuple[str, ...]
    space: str = DEFAULT_SPACE
    subcortical: tuple[int, ...] = ()
    hemisphere: tuple[int, ...] = ()
    folder: Path | None = None
    source: str = ""
    missing: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[Path, ...] = ()
    volume_file: str = FILES["volume"]
    labels_volume: Pair | None = field(default=None, repr=False)
    other_volumes: dict[str, Pair] = field(default_factory=dict, repr=False)
    labels_surface: dict[str, Pair] = field(default_factory=dict, repr=False)
    labels_voxels: np.ndarray | None = field(default=None, repr=False)
    _grids: dict[bytes, Pair] = field(default_factory=dict, repr=False)

    @property
    def n_rois(self) -> int:
        """Number of parcels, R."""
        return len(self.names)

    @property
    def n_subcortical(self) -> int:
        """Labels without a vertex that come before all others."""
        n = len(self.subcortical)
        return n if self.subcortical == tuple(range(1, n + 1)) else 0

    @property
    def roi_sha256(self) -> str:
        """Hash of the atlas and its order of parcels."""
        return roi_sha256(self.label, self.names)

    def volume(self) -> Pair:
        """Label volume (X, Y, Z) int16, 0 or r + 1, and its affine (4, 4).

        Raises
        ------
        ConfigError
            If the atlas is not known in a volume, or its file cannot be used.
        """
        if self.labels_volume is None:
            path = self._file(self.volume_file, self.space)
            try:
                image = load_image(path)
                with reading(path):
                    labels = np.asarray(image.dataobj)
            except DataError as error:
                raise ConfigError(f"{path}: {error}: make the templates again") from error
            self._check_labels(labels, path, set(range(1, self.n_rois + 1)))
            self.labels_volume = labels.astype(np.int16), np.asarray(image.affine)
        return self.labels_volume

    def surface(self, mesh: str) -> Pair:
        """Labels of the left and right vertices of ``fsLR`` or ``fsaverage5``.

        Raises
        ------
        ConfigError
            If the atlas is not known there, or its file cannot be used.
        """
        if mesh not in self.labels_surface:
            path = self._file(FILES[mesh], mesh)
            arrays = _arrays(path)
            left, right = arrays["left"], arrays["right"]
            expected = set(range(1, self.n_rois + 1)) - set(self.subcortical)
            self._check_labels(np.concatenate([left, right]), path, expected)
            self.labels_surface[mesh] = left, right
        return self.labels_surface[mesh]

    def voxels(self) -> np.ndarray:
        """Labels of the subcortex on the voxels of the 91k grayordinates, (91, 109, 91).

        Raises
        ------
        ConfigError
            If they are not known.
        """
        if self.labels_voxels is None:
            path = self._file(FILES["fsLR"], "the 91k grayordinates")
            arrays = _arrays(path)
            if "voxels" not in arrays:
                msg = f"{path} has no labels of the subcortex on the 91k grayordinates: name them in atlas.cifti"
                raise ConfigError(msg)
            self.labels_voxels = arrays["voxels"]
        return self.labels_voxels

    def on_grid(self, shape: tuple[int, ...], affine: np.ndarray) -> Pair:
        """Atlas on another grid.

        Parameters
        ----------
        shape : (X, Y, Z)
        affine : (4, 4) float64, mm

        Returns
        -------
        labels : (X * Y * Z,) int16
            In Fortran order, as NIfTI files store voxels. The label of the nearest atlas voxel.
        in_view : (R,) float64
            Share of each parcel that lies inside the grid.

        Raises
        ------
        DataError
            If fewer than half of the parcels have a voxel there.
        """
        key = np.asarray(shape, np.int64).tobytes() + np.round(affine, 5).tobytes()
        if key not in self._grids:
            atlas, atlas_affine = self.volume()
            labels = resample.nearest_labels(atlas, np.linalg.inv(atlas_affine) @ affine, shape)
            present = np.bincount(labels, minlength=self.n_rois + 1)[1:] > 0
            if present.mean() < MIN_PARCELS_ON_GRID:
                msg = (
                    f"only {present.sum()} of the atlas's {self.n_rois} parcels have a voxel in the image: it is not"
                    f" in {self.space}, its header has a wrong affine, or its voxels are too large"
                )
                raise DataError(msg)
            self._grids[key] = (
                labels,
                resample.share_in_view(atlas, np.linalg.inv(affine) @ atlas_affine, shape, self.n_rois),
            )
        return self._grids[key]

    def _file(self, name: str, where: str) -> Path:
        if self.folder is None or not (self.folder / name).exists():
            msg = (
                f"the atlas {self.label} is not there on {where} ({name}): name its labels in section `atlas`"
            )
            raise ConfigError(msg)
        return self.folder / name

    def _check_labels(self, labels: np.ndarray, path: Path, expected: AbstractSet[int]) -> None:
        found = set(np.unique(labels[labels != 0]).tolist())
        if found != expected:
            there = f"{len(found)} labels ({min(found)}..{max(found)})" if found else "no labels"
            msg = (
                f"{path}: {there}, expected {len(expected)} ({min(expected)}..{max(expected)}):"
                " make the templates again for this atlas"
            )
            raise ConfigError(msg)


def load_atlas(folder: Path, space: str | None = None) -> Atlas:
    """Read the description of the atlas in a template folder; its arrays are read when first used.

    Parameters
    ----------
    folder : Path
    space : str, optional
        Standard space whose volume is wanted, where the folder has several; else the atlas's first.

    Raises
    ------
    ConfigError
        If the folder holds no atlas.
    """
    path = folder / "atlas.json"
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        names, hemisphere = tuple(metadata["names"]), tuple(metadata["hemisphere"])
        label, first = metadata["label"], metadata["space"]
        subcortical = tuple(metadata.get("subcortical", ()))
        volumes = dict(metadata.get("other_volumes", {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{path} describes no atlas ({error!r}): run `python -m bhx_prep.atlas.fetch` first"
        raise ConfigError(msg) from error
    if len(names) != len(hemisphere) or len(set(names)) != len(names):
        msg = f"{path}: {len(names)} names, {len(hemisphere)} hemispheres, or a name twice"
        raise ConfigError(msg)
    atlas = Atlas(label, names, first, subcortical, hemisphere, folder)
    if space in volumes:
        return replace(atlas, space=space, volume_file=volumes[space])
    return atlas


def hemispheres(names: Sequence[str]) -> list[int]:
    """0 (left) or 1 (right) for every ROI name, from its ``LH`` or ``RH``.

    Raises
    ------
    ConfigError
        If a name states neither.
    """
    sides = []
    for name in names:
        found = _HEMISPHERE.search(name)
        if not found:
            msg = f"ROI name {name!r} states no hemisphere: it needs LH or RH in it, as in 7Networks_LH_Vis_1"
            raise ConfigError(msg)
        sides.append("LR".index(found.group(1).upper()))
    return sides


def sides(names: Sequence[str]) -> list[int]:
    """0 (left) or 1 (right) for every ROI name that states one side, -1 for others."""
    found = [{match[0].lower() for match in SIDE.findall(name)} for name in names]
    return ["lr".index(side.pop()) if len(side) == 1 else -1 for side in found]


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with reading(path), np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except DataError as error:
        raise ConfigError(f"{path}: {error}: make the templates again") from error
