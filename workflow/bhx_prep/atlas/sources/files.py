"""An atlas from label files that the configuration names, alone or replacing those of another source."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bhx_model.errors import ConfigError
from bhx_prep.atlas.atlas import FILES, Atlas
from bhx_prep.atlas.checks import missing_files
from bhx_prep.atlas.label_files import (
    NETWORK_ORDER,
    check_order,
    named_volumes,
    read_cifti_labels,
    read_cifti_voxels,
    read_hemisphere,
    read_names,
    renumber_volume,
)
from bhx_prep.config.atlas import TIAN_REGIONS, AtlasSection
from bhx_prep.io.images import load_image


def from_files(section: AtlasSection) -> Atlas:
    """The atlas that the config names file by file.

    Label files may be GIfTI or FreeSurfer annotations on fsLR-32k, fsaverage5 or fsaverage, the CIFTI file a
    dlabel or dscalar on the 91k grayordinates. Labels are matched to the names by the file's own label table
    where that has them, else by number.

    Raises
    ------
    DataError, ConfigError
        If the number of names, labels or vertices is not what the atlas should have.
    """
    assert section.names is not None  # the config model checks it
    names = read_names(section.names)
    n = section.n_subcortical
    if len(names) != n + section.parcels:
        expected = (
            f"{n} of the subcortex and atlas.parcels is {section.parcels}"
            if n
            else f"atlas.parcels is {section.parcels}"
        )
        more = len(names) - section.parcels
        scale = next((scale for scale, regions in TIAN_REGIONS.items() if regions == more), None)
        hint = (
            f" (if the first {more} are Tian's subcortex, set atlas.subcortex to {scale})"
            if scale and not n
            else "; an atlas other than Schaefer's needs an atlas.name"
        )
        msg = f"{section.names} holds {len(names)} names, but {expected}{hint}"
        raise ConfigError(msg)
    for row, name in enumerate(names):
        order = NETWORK_ORDER.search(name)
        if order and row < n:
            msg = f"{section.names}: {name} in row {row + 1}, where atlas.subcortex asks for {n} regions of the subcortex"
            raise ConfigError(msg)
        if order and int(order.group(1)) != section.networks:
            msg = f"{section.names} has names like {name}, but atlas.networks is {section.networks}: set one to the other"
            raise ConfigError(msg)
    nothing = Atlas(
        section.label,
        names,
        subcortical=tuple(range(1, n + 1)),
        source="files named in the config",
        missing=missing_files(section),
        inputs=(section.names,),
    )
    return with_named_files(nothing, section)


def with_named_files(atlas: Atlas, section: AtlasSection) -> Atlas:
    """Put the label files that the config names in the place of those of the source.

    Raises
    ------
    DataError, ConfigError
        If a file cannot be read, or does not hold the labels of `atlas`.
    """
    names, n = atlas.names, len(atlas.subcortical)
    for path in section.label_files:
        check_order(path, names)
    volume, space, surfaces, voxels = atlas.labels_volume, atlas.space, dict(atlas.labels_surface), None
    others = dict(atlas.other_volumes)
    given: set[str] = set()
    if section.volume:
        unchanged = np.arange(len(names) + 1, dtype=np.int16)
        labels = {path: renumber_volume(load_image(path), unchanged, str(path)) for path in section.volume}
        named = {space: labels[path] for space, path in named_volumes(section).items()}
        if volume is not None:  # the source's, in a space for which the config names none
            others = {space: volume, **others}
        others = {space: pair for space, pair in others.items() if space not in named}
        space, *more = named
        volume, others = named[space], others | {other: named[other] for other in more}
        given.add(FILES["volume"])
    if section.cifti:
        surfaces["fsLR"] = read_cifti_labels(section.cifti, names, n)
        voxels = read_cifti_voxels(section.cifti, names[:n]) if n else None
        given.add(FILES["fsLR"])
    if section.left and section.right:
        (mesh, left), (other, right) = (
            read_hemisphere(section.left, names, "left", n),
            read_hemisphere(section.right, names, "right", n),
        )
        if mesh != other:
            raise ConfigError(f"atlas.left is on {mesh} and atlas.right on {other}: name files on one mesh")
        if mesh == "fsLR" and section.cifti:
            raise ConfigError("atlas.cifti and atlas.left are both on fsLR: name one of them")
        surfaces[mesh] = left, right
        given.add(FILES[mesh])
    source = atlas.source
    if given and not source.startswith("files"):
        source = f"{source}; files named in the config: {', '.join(sorted(given))}"
    return replace(
        atlas,
        space=space,
        source=source,
        missing={file: why for file, why in atlas.missing.items() if file not in given},
        inputs=(*atlas.inputs, *section.label_files),
        labels_volume=volume,
        other_volumes=others,
        labels_surface=surfaces,
        labels_voxels=voxels,
    )
