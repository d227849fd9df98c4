"""A custom atlas: a list of names, and the label files that exist."""

from __future__ import annotations

import numpy as np

from bhx_model.errors import ConfigError, DataError
from bhx_prep.atlas.atlas import DEFAULT_SPACE, FILES, Atlas, Pair, sides
from bhx_prep.atlas.checks import missing_files
from bhx_prep.atlas.label_files import check_order, named_volumes, read_vertex_labels
from bhx_prep.atlas.label_lists import LabelList, read_label_list
from bhx_prep.atlas.own_labels import check_complete, match_labels, read_own_volume, sides_of
from bhx_prep.config.atlas import AtlasSection
from bhx_prep.io import cifti
from bhx_prep.io.images import load_image
from bhx_prep.io.meshes import FSAVERAGE5_VERTICES, FSLR_VERTICES, GRAYORDINATES_AFFINE, GRAYORDINATES_SHAPE
from bhx_prep.io.notes import quote


def from_own_files(section: AtlasSection) -> Atlas:
    """The atlas that the config names, with the grids for which there is a label file; none is needed for tables.

    Raises
    ------
    DataError
        If a file cannot be read, or its labels are not the names'.
    ConfigError
        If two files are of one grid, or the name of a label image states no space.
    """
    assert section.names is not None  # the config model checks it
    listed = read_label_list(section.names)
    for path in section.label_files:
        check_order(path, listed.names)
    volumes = {
        space: read_own_volume(path, load_image(path), listed)
        for space, path in named_volumes(section).items()
    }
    surfaces, voxels = _surfaces(section, listed)
    hemisphere, n = sides(listed.names), len(listed.names)
    on_surface = np.zeros(0, np.int64)
    for left, right in surfaces.values():
        hemisphere = sides_of(left, right, listed.names, str(section.cifti or section.left))
        on_surface = np.union1d(on_surface, np.concatenate([left, right]))
    for mesh, pair in surfaces.items():
        inside = [listed.names[i - 1] for i in np.setdiff1d(on_surface, np.concatenate(pair)) if i]
        if inside:
            msg = f"{section.name} has {quote(inside[0])} on another surface, but not on {mesh}: use files of one atlas"
            raise DataError(msg)
    if surfaces and voxels is None and not volumes:
        check_complete(on_surface, listed.names, str(section.left))
    given = {FILES[grid] for grid in (*surfaces, *(["volume"] if volumes else []))}
    space = next(iter(volumes), None)
    return Atlas(
        section.label,
        listed.names,
        space or DEFAULT_SPACE,
        subcortical=tuple(np.setdiff1d(np.arange(1, n + 1), on_surface).tolist()) if surfaces else (),
        hemisphere=tuple(hemisphere),
        source="names and files named in the config",
        missing={file: why for file, why in missing_files(section).items() if file not in given},
        inputs=(section.names, *section.label_files),
        labels_volume=volumes.pop(space) if space else None,
        other_volumes=volumes,
        labels_surface=surfaces,
        labels_voxels=voxels,
    )


def _surfaces(section: AtlasSection, listed: LabelList) -> tuple[dict[str, Pair], np.ndarray | None]:
    """Labels of both hemispheres by mesh, and of the voxels of the 91k grayordinates."""
    surfaces: dict[str, Pair] = {}
    voxels = None
    if section.cifti:
        surfaces["fsLR"], voxels = _cifti(section, listed)
    if section.left and section.right:
        found = []
        for side, path in enumerate((section.left, section.right)):
            mesh, values, table = read_vertex_labels(path)
            labels = match_labels(values, table, listed, str(path), side)
            found.append((mesh, labels[:FSAVERAGE5_VERTICES] if mesh == "fsaverage5" else labels))
        (mesh, left), (other, right) = found
        if mesh != other:
            raise ConfigError(f"atlas.left is on {mesh} and atlas.right on {other}: name files on one mesh")
        if mesh in surfaces:
            raise ConfigError("atlas.cifti and atlas.left are both on fsLR: name one of them")
        surfaces[mesh] = left, right
    return surfaces, voxels


def _cifti(section: AtlasSection, listed: LabelList) -> tuple[Pair, np.ndarray | None]:
    """Labels of a CIFTI file on the vertices of fsLR-32k, and on the voxels where it has any."""
    path = section.cifti
    assert path is not None
    axes, values = cifti.read_labels(path)
    labels = match_labels(values, axes.labels, listed, str(path))
    check_complete(labels, listed.names, str(path))
    on = {part.structure: part for part in axes.surfaces}
    pair = []
    for structure in cifti.CORTEX:
        if structure not in on or on[structure].n_vertices != FSLR_VERTICES:
            raise DataError(f"{path} has no left and right cortex of {FSLR_VERTICES} vertices (fsLR-32k)")
        part, full = on[structure], np.zeros(FSLR_VERTICES, np.int16)
        full[part.vertices] = labels[part.offset : part.offset + part.vertices.size]
        pair.append(full)
    if not any((labels[offset : offset + len(index)] > 0).any() for offset, index in axes.voxels):
        return (pair[0], pair[1]), None
    if (
        axes.grid is None
        or axes.grid[0] != GRAYORDINATES_SHAPE
        or not np.allclose(axes.grid[1], GRAYORDINATES_AFFINE)
    ):
        raise DataError(
            f"{path}: its voxels are not those of the 91k grayordinates: take the atlas in that form"
        )
    voxels = np.zeros(GRAYORDINATES_SHAPE, np.int16)
    for offset, index in axes.voxels:
        voxels[tuple(index.T)] = labels[offset : offset + len(index)]
    twice = np.intersect1d(voxels[voxels > 0], np.concatenate(pair))
    if twice.size:
        raise DataError(
            f"{path}: {quote(listed.names[twice[0] - 1])} has vertices and voxels: split it in two"
        )
    return (pair[0], pair[1]), voxels
