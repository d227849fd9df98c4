"""What cohorts and models ask of the atlas, checked by the configuration alone: no file is read, nothing is fetched."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bhx_prep.atlas.atlas import DEFAULT_SPACE, FILES
from bhx_prep.atlas.label_files import space_of
from bhx_prep.config.atlas import AtlasSection
from bhx_prep.config.config import Config

#: Numbers of parcels for which the packages carry labels on fsLR-32k, and a volume.
BRAINSPACE_SIZES: Final = (100, 200, 300, 400, 1000)
DEEPMRIPREP_SIZES: Final = (100, 200, 400, 600)


def mistakes(study: Config) -> list[str]:
    """What cohorts and harmonics ask of the atlas that it does not have: a line each, with its dotted path.

    Known without reading a file, hours before the first run of a cohort is excluded for it.
    """
    atlas = study.atlas
    missing = missing_files(atlas)
    if atlas.volume:
        missing.pop(FILES["volume"], None)
    if atlas.cifti or atlas.left:
        missing.pop(FILES["fsLR"], None)
    if atlas.left:  # its mesh is known when it is read
        missing.pop(FILES["fsaverage5"], None)
    volume_space = (space_of(atlas.volume) if atlas.volume else None) or DEFAULT_SPACE
    lines = []
    for name, cohort in study.cohorts.items():
        if cohort.input == "timeseries":
            continue
        in_volume = cohort.space.startswith("MNI")
        file = FILES["volume" if in_volume else cohort.space]
        if file in missing:
            lines.append(
                f"cohorts.{name}.space: {cohort.space}, where the atlas is not there: {missing[file]}"
            )
        elif in_volume and cohort.space != volume_space:
            lines.append(
                f"cohorts.{name}.space: {cohort.space}, but the atlas is in {volume_space}: name one in the other's space"
            )
    if study.experiments and FILES["fsLR"] in missing:
        lines.append(f"atlas: the harmonics of a model need it on fsLR-32k: {missing[FILES['fsLR']]}")
    return lines


def missing_files(section: AtlasSection) -> dict[str, str]:
    """Files that the source of an atlas cannot give, with a sentence about each.

    Files that the config names in their place do not count.
    """
    n = section.parcels
    if section.source == "files":
        keys = {
            FILES["volume"]: "atlas.volume",
            FILES["fsLR"]: "atlas.cifti, or atlas.left and atlas.right on fsLR-32k",
            FILES["fsaverage5"]: "atlas.left and atlas.right on fsaverage5 or fsaverage",
        }
        return {file: f"not named in the config: set {key}" for file, key in keys.items()}
    missing = {}
    if section.source == "packages" and n not in DEEPMRIPREP_SIZES:
        missing[FILES["volume"]] = (
            f"the packages carry no volume of {n} parcels, only of {_listed(DEEPMRIPREP_SIZES)}: for data in "
            "volume space use one of these, or set atlas.source to `templateflow`, or name a label image in atlas.volume"
        )
    if n not in BRAINSPACE_SIZES:
        missing[FILES["fsLR"]] = (
            f"the packages carry no fsLR-32k labels of {n} parcels, only of {_listed(BRAINSPACE_SIZES)}: use one of "
            "these, or name a label file in atlas.cifti"
        )
    return missing


def is_fetched(section: AtlasSection, folder: Path) -> bool:
    """Whether `folder` holds this atlas from TemplateFlow already."""
    try:
        metadata = json.loads((folder / "atlas.json").read_bytes())
        return metadata["label"] == section.label and "TemplateFlow" in metadata["source"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes))
