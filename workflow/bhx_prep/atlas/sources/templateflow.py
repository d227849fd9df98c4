"""Schaefer's atlas from TemplateFlow's folder, which its client fills."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bhx_model.errors import SiteError
from bhx_prep.atlas.atlas import DEFAULT_SPACE, Atlas
from bhx_prep.atlas.checks import missing_files
from bhx_prep.atlas.label_files import read_hemisphere, renumber_volume
from bhx_prep.atlas.sources import packages
from bhx_prep.config.atlas import AtlasSection
from bhx_prep.io.images import load_image


def from_templateflow(section: AtlasSection, spaces: Sequence[str] = (DEFAULT_SPACE,)) -> Atlas:
    """Schaefer 2018 from TemplateFlow: volumes, names and fsaverage; it has none on fsLR, the packages do.

    Raises
    ------
    SiteError
        If a file is neither there nor to be had.
    """
    n = section.parcels
    *volumes, left, right = templateflow_files(section, spaces)
    # the names come from the label files: TemplateFlow's tables shorten some
    _, names = packages.read_annot(n, section.networks)
    renumber = packages.order_7_to_17(n) if section.networks == 17 else np.arange(n + 1, dtype=np.int16)
    fslr = packages.fslr_labels(n, renumber)
    unchanged = np.arange(n + 1, dtype=np.int16)
    labels = [renumber_volume(load_image(volume), unchanged, str(volume)) for volume in volumes]
    surfaces = {
        "fsaverage5": (read_hemisphere(left, names, "left")[1], read_hemisphere(right, names, "right")[1])
    }
    return Atlas(
        section.label,
        names,
        source="Schaefer 2018 (CBIG) from TemplateFlow; fsLR-32k and names from packages (brainspace, chimera)",
        missing=missing_files(section),
        inputs=(
            *volumes,
            left,
            right,
            *packages.annot_files(n, section.networks),
            *([packages.brainspace_file(n)] if fslr else []),
        ),
        space=spaces[0],
        labels_volume=labels[0],
        other_volumes=dict(zip(spaces[1:], labels[1:], strict=True)),
        labels_surface=surfaces | ({"fsLR": fslr} if fslr else {}),
    )


def templateflow_files(section: AtlasSection, spaces: Sequence[str] = (DEFAULT_SPACE,)) -> tuple[Path, ...]:
    """The files of an atlas in TemplateFlow's folder: its volume in each of `spaces`, then its labels on fsaverage.

    Files that the folder already holds are used as they are; others are downloaded by TemplateFlow's client.

    Raises
    ------
    SiteError
        If a file is neither there nor to be had.
    """
    volumes = [
        _templateflow(
            space,
            atlas="Schaefer2018",
            desc=f"{section.parcels}Parcels{section.networks}Networks",
            resolution=1,
            suffix="dseg",
            extension=".nii.gz",
        )
        for space in spaces
    ]
    left, right = (
        _templateflow(
            "fsaverage",
            atlas="Schaefer2018",
            segmentation=f"{section.networks}n",
            scale=section.parcels,
            hemi=hemi,
            density="164k",
            suffix="dseg",
            extension=".label.gii",
        )
        for hemi in "LR"
    )
    return *volumes, left, right


def _templateflow(template: str, **query: Any) -> Path:
    what = f"{template} {query}"
    try:
        from templateflow import api

        found: Any = api.get(template, raise_empty=True, **query)  # pyright: ignore[reportCallIssue]
    except Exception as error:  # its client raises whatever its transport raises
        msg = (
            f"TemplateFlow has no {what} here and could not fetch it ({type(error).__name__}): fetch it where "
            "there is a network and set TEMPLATEFLOW_HOME, or set atlas.source to `packages` or `files`"
        )
        raise SiteError(msg) from error
    paths = [found] if isinstance(found, Path) else list(found)
    if len(paths) != 1 or not paths[0].is_file() or not paths[0].stat().st_size:
        msg = f"TemplateFlow gave {len(paths)} usable files for {what} where one is expected: fetch it again"
        raise SiteError(msg)
    return paths[0]
