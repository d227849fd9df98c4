"""Check from the configuration alone that the atlas suits cohorts and models; no image is read, nothing downloaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bhx_model.errors import ConfigError, DataError
from bhx_prep.atlas.atlas import DEFAULT_SPACE, FILES
from bhx_prep.atlas.label_files import named_volumes
from bhx_prep.atlas.label_lists import read_label_list
from bhx_prep.config.atlas import AtlasSection
from bhx_prep.config.config import Config
from bhx_prep.io.spaces import SURFACES

#: Numbers of parcels for which the packages carry labels on fsLR-32k, and a volume.
BRAINSPACE_SIZES: Final = (100, 200, 300, 400, 1000)
DEEPMRIPREP_SIZES: Final = (100, 200, 400, 600)
#: Standard spaces in which a source has the volume.
SPACES: Final = {"packages": (DEFAULT_SPACE,), "templateflow": (DEFAULT_SPACE, "MNI152NLin6Asym")}


def mistakes(study: Config) -> list[str]:
    """What cohorts and models ask of the atlas that it does not have: a line each, with its dotted path.

    Known without reading an image, hours before the first run of a cohort is excluded for it.
    """
    atlas = study.atlas
    try:
        spaces = list(dict.fromkeys([*named_volumes(atlas), *SPACES.get(atlas.source, ())]))
    except ConfigError as error:
        return [f"atlas.volume: {error}"]
    missing = _not_there(atlas)
    source = ", or set atlas.source to `templateflow`" if atlas.source == "packages" else ""
    lines = []
    for name, cohort in study.cohorts.items():
        if cohort.input == "timeseries":
            continue
        in_volume = cohort.space not in SURFACES
        file = FILES["volume" if in_volume else cohort.space]
        if file in missing:
            lines.append(
                f"cohorts.{name}.space: {cohort.space}, where the atlas is not there: {missing[file]}"
            )
        elif in_volume and cohort.space not in spaces:
            lines.append(
                f"cohorts.{name}.space: {cohort.space}, but the atlas is in {' and '.join(spaces)}: add a label image in "
                f"that space to atlas.volume{source}, or use other images"
            )
    if study.features.harmonics != "none" and FILES["fsLR"] in missing and (study.experiments or atlas.name):
        lines.append(
            f"features.harmonics: {study.features.harmonics}, but they need {atlas.label} on fsLR-32k: "
            f"{missing[FILES['fsLR']]}; or set features.harmonics to `none`"
        )
    return lines + _own_names(study)


def _not_there(section: AtlasSection) -> dict[str, str]:
    """Files that neither the source has nor the config names."""
    missing = missing_files(section)
    if section.volume:
        missing.pop(FILES["volume"], None)
    if section.cifti or section.left:
        missing.pop(FILES["fsLR"], None)
    if section.left:  # its mesh is known when it is read
        missing.pop(FILES["fsaverage5"], None)
    return missing


def _own_names(study: Config) -> list[str]:
    """What is wrong with the list of names of an atlas of the user's own, or too much for the ROIs that there are."""
    n = study.atlas.parcels + study.atlas.n_subcortical
    if study.atlas.name:
        if not study.atlas.names:
            return []
        try:
            n = len(read_label_list(study.atlas.names).names)
        except DataError as error:
            return [f"atlas.names: {error}"]
    most = n - 2
    if study.experiments and study.features.gradients > most:
        return [f"features.gradients: {study.features.gradients} of {n} ROIs: ask for {most} at most"]
    return []


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


def is_fetched(section: AtlasSection, folder: Path, spaces: Sequence[str]) -> bool:
    """Whether `folder` holds this atlas from TemplateFlow already, in these spaces."""
    try:
        metadata = json.loads((folder / "atlas.json").read_bytes())
        there = {metadata["space"], *metadata.get("other_volumes", ())}
        return (
            metadata["label"] == section.label
            and "TemplateFlow" in metadata["source"]
            and set(spaces) <= there
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes))
