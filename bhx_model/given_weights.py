"""Weights trained outside the study: which stages a folder holds, and where their files are. Needs no torch.

Folders of three kinds are understood: an export (``config.json``, ``<stage>.safetensors``), one with a folder for each stage
(``<stage>/run.json``; what ``bhx_model.compat load`` writes, and an experiment's), and the folder of one stage itself
(``run.json``), in which a run keeps it as ``final/``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bhx_model import contract
from bhx_model.atomic_write import read_json
from bhx_model.config import STAGES
from bhx_model.errors import ConfigError, DataError
from bhx_model.remote.urls import DOWNLOAD_WEIGHTS, shown, was_url

#: Where what belongs to all stages is, as seen from a folder of stages, an export or an experiment's.
_AROUND: Final = (".", "subjects")


@dataclasses.dataclass(frozen=True)
class GivenStage:
    """Files of one stage."""

    stage: str
    weights: Path
    about: Path
    """JSON that describes it: ``config.json`` of an export, or ``run.json``."""

    @property
    def is_exported(self) -> bool:
        """Whether it is part of an export, whose file describes all stages."""
        return self.about.name == "config.json"

    def describe(self) -> dict[str, Any]:
        """Read what is known of the stage, in the form of a ``run.json``.

        Raises
        ------
        DataError
            If the file cannot be read, or describes no such stage.
        """
        about = read_json(self.about, "take the weights as they were made")
        if not self.is_exported:
            return about
        try:
            stage = dict(about["stages"][self.stage])
            return {
                # of all stages; what belongs to the file itself is left out
                **{k: v for k, v in about.items() if k not in ("export", "rois", "stages", "terms")},
                **stage,
                "stage": self.stage,
                "cohorts": sorted(about["terms"]),
                "synthetic": about["synthetic"],
            }
        except (KeyError, TypeError, ValueError) as error:
            msg = f"{self.about} does not describe the {self.stage} stage ({error!r}): export again"
            raise DataError(msg) from error


def find(folder: Path) -> dict[str, GivenStage]:
    """Find the stages of which a folder holds weights, in their order.

    Raises
    ------
    ConfigError
        If there is no such folder, or it holds none.
    """
    if was_url(folder):
        msg = f"{shown(str(folder), 40)} is a URL, weights are read from a folder: download them with `{DOWNLOAD_WEIGHTS}`"
        raise ConfigError(msg)
    if not folder.is_dir():
        msg = f"no folder {folder}: name an export, an experiment's folder, or what `bhx_model.compat load` wrote"
        raise ConfigError(msg)
    found = {given.stage: given for given in _stages(folder)}
    if not found:
        msg = f"{folder} holds no weights: name an export, an experiment's folder, or what `bhx_model.compat load` wrote"
        raise ConfigError(msg)
    return {stage: found[stage] for stage in STAGES if stage in found}


def rois(folder: Path) -> Path | None:
    """Metadata of the ROIs that go with the weights of a folder; None if there are none."""
    return _around(folder, "rois.npz")


def people(folder: Path, stage: str) -> dict[str, list[str]] | None:
    """Hashes of the subjects that the weights of a stage were trained on, by kind.

    None where neither card nor list say it, or where they are no hashes as BHX makes them.

    The card is ``config.json`` or ``run.json``, the list ``pretrain.json`` of an experiment or of a folder of encoders.

    Raises
    ------
    ConfigError
        If there are no such weights.
    DataError
        If a file cannot be read.
    """
    found = find(folder)
    if stage not in found:
        msg = f"{folder} holds {', '.join(found)}, but no {stage}: name another folder"
        raise ConfigError(msg)
    listed, path = found[stage].describe().get("people"), _around(folder, "pretrain.json")
    if not listed and path is not None:
        listed = read_json(path, "take the weights as they were made").get("people")
    return contract.people_of(listed)


def _around(folder: Path, name: str) -> Path | None:
    # beside the folder of a stage are those of the others
    places = (*_AROUND, "..") if _is_stage(folder) else _AROUND
    return next((path for place in places if (path := folder / place / name).exists()), None)


def _stages(folder: Path) -> Iterator[GivenStage]:
    for stage in STAGES:
        weights = folder / f"{stage}.safetensors"
        if (folder / "config.json").exists() and weights.exists():
            yield GivenStage(stage, weights, folder / "config.json")
        elif _is_stage(folder / stage):
            yield GivenStage(stage, folder / stage / "model.safetensors", folder / stage / "run.json")
    for alone in (folder, folder / "final"):
        if _is_stage(alone):
            try:
                stage = read_json(alone / "run.json", "train the stage again").get("stage")
            except DataError as error:
                raise ConfigError(str(error)) from error
            yield GivenStage(str(stage), alone / "model.safetensors", alone / "run.json")


def _is_stage(folder: Path) -> bool:
    return (folder / "run.json").exists() and (folder / "model.safetensors").exists()
