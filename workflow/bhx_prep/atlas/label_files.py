"""Label files of an atlas (volumes, FreeSurfer annotations, GIfTI, CIFTI) and the names of its parcels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np
from nibabel.freesurfer import read_annot as read_freesurfer_annot

from bhx_model.errors import ConfigError, DataError
from bhx_prep.atlas.atlas import hemispheres
from bhx_prep.atlas.label_lists import read_label_list
from bhx_prep.config.atlas import AtlasSection
from bhx_prep.io import bids_names, cifti
from bhx_prep.io.hemispheres import check_side
from bhx_prep.io.images import load_image
from bhx_prep.io.meshes import (
    FSAVERAGE5_VERTICES,
    FSAVERAGE_VERTICES,
    FSLR_VERTICES,
    GRAYORDINATES_AFFINE,
    GRAYORDINATES_SHAPE,
    MESHES,
)
from bhx_prep.io.reading import reading

#: What states the order of networks in names of ROIs and of files.
NETWORK_ORDER: Final = re.compile(r"(?<!\d)(7|17)(?:Networks|n(?=_))")


def read_names(path: Path) -> tuple[str, ...]:
    """Read ROI names from a text file of any form that `bhx_prep.atlas.label_lists` reads.

    Raises
    ------
    DataError
        If it cannot be read, or holds a name twice.
    """
    return read_label_list(path).names


def check_order(labels: Path, names: Sequence[str]) -> None:
    """Refuse names in the order of 7 networks for a label file in that of 17, and the other way round.

    Raises
    ------
    DataError
        If the file's name and the names of the parcels state different orders.
    """
    theirs, ours = NETWORK_ORDER.search(labels.name), NETWORK_ORDER.search(names[-1])
    if theirs and ours and theirs.group(1) != ours.group(1):
        msg = (
            f"{labels.name} is in the order of {theirs.group(1)} networks, the names ({names[-1]}, ..) in that of"
            f" {ours.group(1)}: the numbers would mean other parcels; use files of one order"
        )
        raise DataError(msg)


def space_of(volume: Path) -> str | None:
    """Standard space that the name of a label image states, in BIDS' words; None where it states none."""
    entities = bids_names.parse(volume.name)
    if space := entities.get("space") or entities.get("tpl"):
        space = f"{space}:cohort-{age}" if (age := entities.get("cohort")) else space
        return space
    if "FSLMNI152" in volume.name:  # CBIG's word
        return "MNI152NLin6Asym"
    found = re.search(r"MNI152[A-Z][A-Za-z0-9]+", volume.name)
    return found.group() if found else None


def named_volumes(section: AtlasSection) -> dict[str, Path]:
    """Label images that the config names, by the standard spaces that their names state.

    Raises
    ------
    ConfigError
        If the name of one states no space, or two state the same.
    """
    volumes: dict[str, Path] = {}
    for path in section.volume:
        space = space_of(path)
        if space is None:
            msg = f"{path}: its name states no standard space: call it tpl-<space>_atlas-<name>_dseg.nii.gz"
            raise ConfigError(msg)
        if space in volumes:
            raise ConfigError(
                f"atlas.volume names two label images in {space}: {volumes[space]} and {path}; name one"
            )
        volumes[space] = path
    return volumes


def renumber_volume(
    image: Any, renumber: np.ndarray, what: str = "the atlas volume"
) -> tuple[np.ndarray, np.ndarray]:
    """Labels of a label image under other numbers.

    Parameters
    ----------
    image : nibabel image, (X, Y, Z)
    renumber : numpy.ndarray of int16, shape (R + 1,)
        Label to give for each label of the image.
    what : str
        What the image is called in messages.

    Returns
    -------
    labels : numpy.ndarray of int16, shape (X, Y, Z)
    affine : numpy.ndarray of shape (4, 4)
        Voxels to mm.

    Raises
    ------
    DataError
        If it does not hold each of the labels 0..R, and no other.
    """
    with reading(Path(what), "cannot be read, it is truncated or damaged"):
        values = np.asanyarray(image.dataobj)
    found = np.unique(values)
    expected = np.arange(len(renumber))
    if not np.array_equal(found, expected):
        odd = [(np.setdiff1d(found, expected), "too many"), (np.setdiff1d(expected, found), "missing")]
        listed = [
            f"{labels[0]:g} is {how}" + (f" (and {len(labels) - 1} more)" if len(labels) > 1 else "")
            for labels, how in odd
            if len(labels)
        ]
        msg = (
            f"{what} should hold each of the labels 0..{expected[-1]}; {', '.join(listed)}: take a label image of the"
            " atlas that section `atlas` describes"
        )
        raise DataError(msg)
    return renumber[values.astype(np.int16)], np.asarray(image.affine)


def read_surface_labels(paths: Sequence[Path], names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Left and right labels (V,) 1..R in the order of `names`, from a CIFTI label file or one file per hemisphere.

    Raises
    ------
    DataError
        If a file is no label file, or does not hold the parcels that `names` specifies.
    """
    if len(paths) == 1 and paths[0].name.endswith(".nii"):
        return read_cifti_labels(paths[0], names)
    if len(paths) != 2:
        msg = (
            f"{len(paths)} label files: expected one .dlabel.nii, or a left and a right .label.gii or .annot"
        )
        raise DataError(msg)
    (mesh, left), (other, right) = (
        read_hemisphere(path, names, side) for path, side in zip(paths, ("left", "right"), strict=True)
    )
    if mesh != other:
        msg = f"{paths[0]} is on {mesh}, {paths[1]} on {other}: use one mesh"
        raise DataError(msg)
    return left, right


def names_on_surfaces(paths: Sequence[Path]) -> tuple[str, ...]:
    """Names that the label files of both hemispheres give their parcels of the cortex, by rising label.

    Raises
    ------
    DataError
        If a file is no label file, or a parcel has no name of its own.
    """
    names: list[str] = []
    if len(paths) == 1:
        axes, values = cifti.read_labels(paths[0])
        on_surface = [values[part.offset : part.offset + part.vertices.size] for part in axes.surfaces]
        parts = [(np.concatenate([np.zeros(0, np.int64), *on_surface]), axes.labels)]
    else:
        parts = [_read_labels(path) for path in paths]
    for values, table in parts:
        names += [table.get(int(label), "") for label in np.unique(values[values > 0])]
    if not all(names) or len(set(names)) != len(names):
        msg = (
            f"{paths[0]} names its parcels not at all or two alike: give their names in a text file (--names)"
        )
        raise DataError(msg)
    return tuple(names)


def read_hemisphere(
    path: Path, names: Sequence[str], side: str, n_subcortical: int = 0
) -> tuple[str, np.ndarray]:
    """Labels of one hemisphere from a GIfTI label file or a FreeSurfer annotation.

    Parameters
    ----------
    path : Path
        On fsLR-32k, fsaverage5 or fsaverage.
    names : sequence of str
        Of all R parcels.
    side : str
        ``left`` or ``right``.
    n_subcortical : int
        So many of the first names are of the subcortex.

    Returns
    -------
    mesh : str
        ``fsLR`` or ``fsaverage5``, to which fsaverage is cut.
    labels : numpy.ndarray of int16
        1..R in the order of `names`; 0 is no parcel.

    Raises
    ------
    DataError
        If it is no label file, on another mesh, or lacks a parcel of this side.
    """
    mesh, values, table = read_vertex_labels(path, side)
    labels = _renumber_side(np.maximum(values, 0), table, names, side, str(path), n_subcortical)
    return mesh, labels[:FSAVERAGE5_VERTICES] if mesh == "fsaverage5" else labels


def read_cifti_labels(
    path: Path, names: Sequence[str], n_subcortical: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Left and right labels of the cortex on fsLR-32k from a CIFTI label file, (32492,) int16 each.

    Raises
    ------
    DataError
        If it is no label file, on another mesh, or lacks a parcel of `names`.
    """
    axes, values = cifti.read_labels(path)
    sides = dict(zip(cifti.CORTEX, ("left", "right"), strict=True))
    labels = {}
    for part in axes.surfaces:
        side = sides[part.structure]
        if part.n_vertices != FSLR_VERTICES:
            msg = f"{path} has {part.n_vertices} {side} vertices, not {FSLR_VERTICES} (fsLR-32k)"
            raise DataError(msg)
        full = np.zeros(FSLR_VERTICES, np.int64)
        full[part.vertices] = values[part.offset : part.offset + part.vertices.size]
        labels[side] = _renumber_side(full, axes.labels, names, side, str(path), n_subcortical)
    if set(labels) != {"left", "right"}:
        msg = f"{path} has no left and right cortex"
        raise DataError(msg)
    return labels["left"], labels["right"]


def read_cifti_voxels(path: Path, names: Sequence[str]) -> np.ndarray:
    """Labels 1.. of the regions `names` of the subcortex on the voxels of the 91k grayordinates, (91, 109, 91) int16.

    Raises
    ------
    DataError
        If the file counts its voxels on another grid, or has none of a region.
    """
    axes, values = cifti.read_labels(path)
    if (
        axes.grid is None
        or axes.grid[0] != GRAYORDINATES_SHAPE
        or not np.allclose(axes.grid[1], GRAYORDINATES_AFFINE)
    ):
        msg = f"{path}: its voxels are not those of the 91k grayordinates, on which atlas.subcortex is looked for"
        raise DataError(msg)
    volume = np.zeros(GRAYORDINATES_SHAPE, np.int16)
    number_of = {name: value for value, name in reversed(axes.labels.items())}
    for number, name in enumerate(names, 1):
        wanted, found = number_of.get(name, number), False
        for offset, index in axes.voxels:
            inside = values[offset : offset + len(index)] == wanted
            volume[tuple(index[inside].T)] = number
            found |= bool(inside.any())
        if not found:
            msg = f"{path} has no voxel of {name}: it should hold each region of the subcortex in atlas.names"
            raise DataError(msg)
    return volume


def read_vertex_labels(path: Path, side: str | None = None) -> tuple[str, np.ndarray, dict[int, str]]:
    """Mesh of a label file of one hemisphere, its labels (V,), and their names.

    Labels on fsaverage are those of its mesh of 163842 vertices, of which fsaverage5 has the first 10242.

    Raises
    ------
    DataError
        If it is no label file, on another mesh, or of another hemisphere than `side`.
    """
    values, table = _read_labels(path, side)
    meshes = MESHES | {FSAVERAGE_VERTICES: "fsaverage5"}
    if values.ndim != 1 or len(values) not in meshes:
        msg = (
            f"{path} has {values.size} vertices: {FSLR_VERTICES} (fsLR-32k), {FSAVERAGE5_VERTICES} (fsaverage5) "
            f"or {FSAVERAGE_VERTICES} (fsaverage) are expected"
        )
        raise DataError(msg)
    return meshes[len(values)], values, table


def _read_labels(path: Path, side: str | None = None) -> tuple[np.ndarray, dict[int, str]]:
    """Labels of the vertices of one hemisphere, and their names."""
    if path.suffix == ".annot":
        if side is not None:
            check_side(path, side)
        with reading(path):
            values, _, raw = read_freesurfer_annot(path)
            return values, {i: name.decode("utf-8") for i, name in enumerate(raw)}
    gii = load_image(path)
    if not isinstance(gii, nib.GiftiImage) or len(gii.darrays) != 1:
        msg = f"{path} is no label file: a .label.gii with one map or a .annot is expected"
        raise DataError(msg)
    if side is not None:
        check_side(path, side, gii)
    return np.asarray(gii.darrays[0].data).astype(np.int64), gii.labeltable.get_labels_as_dict()


def _renumber_side(
    values: np.ndarray,
    table: Mapping[int, str],
    names: Sequence[str],
    side: str,
    what: str,
    n_subcortical: int,
) -> np.ndarray:
    """Labels of one hemisphere as global numbers: by name where `table` has all of them, else by number."""
    sides = np.array(hemispheres(names))
    wanted = [i + 1 for i in range(n_subcortical, len(names)) if sides[i] == ("left", "right").index(side)]
    number_of = {name: i + 1 for i, name in enumerate(names)}
    by_name = {value: number_of[name] for value, name in table.items() if name in number_of}
    if set(wanted) <= set(by_name.values()):
        out = np.zeros(values.shape, np.int16)
        for value, number in by_name.items():
            out[values == value] = number
    else:
        offset = 0 if side == "left" or values.max() > len(wanted) else len(names) - len(wanted)
        out = np.where(values > 0, values + offset, 0).astype(np.int16)
    if not np.array_equal(np.unique(out[out > 0]), wanted):
        msg = (
            f"{what} should hold each of the {len(wanted)} {side} parcels of atlas.names; "
            f"{np.isin(wanted, out).sum()} of them are there"
        )
        raise DataError(msg)
    return out
