"""Warm start: begin a training with given weights instead of random ones.

It is no resumption: the training starts at its first step with a fresh optimizer, and its run has another name, which holds
the weights' hash. A run that was stopped resumes from its own checkpoint and does not ask for them again.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bhx_model import given_weights
from bhx_model.atomic_write import write_json
from bhx_model.config import ModelConfig
from bhx_model.data.rois import RoiMetadata
from bhx_model.errors import ConfigError, DataError
from bhx_model.file_hash import file_sha256
from bhx_model.nets.factory import empty_rois
from bhx_model.neutral_settings import decisive
from bhx_model.strict_fields import to_dict
from bhx_model.training import checkpoint

logger = logging.getLogger(__name__)

#: File of a run folder with what became of every key.
REPORT = "init_from.json"
#: Its entry for settings of the model: weights of equal shape may not compute the same with others.
OTHERWISE = "trained with other settings"


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """Weights of a stage to start from."""

    folder: Path
    weights: Path
    sha256: str
    settings: Mapping[str, Any]
    """Settings of the model that the weights were trained in, by name; nothing where that is not known."""

    @classmethod
    def open(cls, folder: Path, stage: str, rois: RoiMetadata | None) -> WarmStart:
        """Find the weights of a stage.

        Parameters
        ----------
        folder : Path
            With weights, as `given_weights.find` understands it.
        stage : str
        rois : RoiMetadata, optional
            Of the training, where it reads series; those of a function encoder have to be the same, in the same order.

        Raises
        ------
        ConfigError
            If the folder holds no weights of this stage.
        DataError
            If they are of other ROIs, or not those that the folder describes.
        """
        found = given_weights.find(folder)
        if stage not in found:
            msg = f"{folder} holds {', '.join(found)}, but no {stage} to start from: name another folder in `init_from`"
            raise ConfigError(msg)
        given = found[stage]
        about, sha256 = given.describe(), file_sha256(given.weights)
        if about.get("sha256", sha256) != sha256:
            msg = f"{given.weights} is not the file that was exported (sha256 differs): copy it again, or export again"
            raise DataError(msg)
        if stage == "function" and rois is not None:
            try:
                empty_rois(about["model_metadata"]).check_order(rois.names)
            except KeyError as error:
                msg = f"{given.about} does not say which ROIs the weights are of: take them as they were made"
                raise DataError(msg) from error
            except DataError as error:
                msg = f"{folder} is of other ROIs than this training: {error}"
                raise DataError(msg) from error
        return cls(folder, given.weights, sha256, dict((about.get("config") or {}).get("model") or {}))

    @torch.no_grad()
    def put_into(self, model: nn.Module, settings: ModelConfig, run: Path | None) -> None:
        """Replace a model's weights, key by key, where they fit, and log what became of every other key.

        Buffers stay: normaliser, gradients, harmonics and mean connectivity are those of the subjects trained on now.

        Parameters
        ----------
        model : Module
            As it was built.
        settings : ModelConfig
            Of this model. With others the same weights may compute something else, as with another number of heads.
        run : Path or None
            Folder for the report; None in the processes that write and log nothing.

        Raises
        ------
        DataError
            If no key fits.
        """
        tensors, own = checkpoint.read_tensors(self.weights), dict(model.named_parameters())
        fits = [name for name, p in own.items() if name in tensors and tensors[name].shape == p.shape]
        if not fits:
            msg = f"no weight of {self.weights} fits this configuration: choose the preset that it was trained with"
            raise DataError(msg)
        for name in fits:
            own[name].copy_(tensors[name])
        if run is None:
            return
        report = self._report(tensors, model, set(fits)) | {OTHERWISE: self._other_settings(settings)}
        write_json(run / REPORT, report)
        logger.info(
            "warm start from %s: %d of %d weights taken, at step 0 with a fresh optimizer",
            self.folder,
            len(fits),
            len(own),
        )
        for setting in report[OTHERWISE]:
            logger.warning("warm start: %s: %s", OTHERWISE, setting)
        for what, keys in report.items():
            for key in keys if what not in ("taken", "kept", OTHERWISE) and isinstance(keys, list) else ():
                logger.info("warm start: %s: %s", what, key)

    def _other_settings(self, settings: ModelConfig) -> list[str]:
        """Settings in which the weights were trained and are not now, with both values."""
        here = decisive({"model": to_dict(settings)})["model"]
        return [
            f"{name} {self.settings[name]}, here {value}"
            for name, value in here.items()
            if name in self.settings and self.settings[name] != value
        ]

    def _report(self, tensors: dict[str, torch.Tensor], model: nn.Module, fits: set[str]) -> dict[str, Any]:
        own, state = dict(model.named_parameters()), model.state_dict()
        return {
            "folder": str(self.folder),
            "sha256": self.sha256,
            "taken": sorted(fits),
            "of another shape, random": [
                f"{name} {tuple(tensors[name].shape)}, here {tuple(own[name].shape)}"
                for name in sorted((own.keys() & tensors.keys()) - fits)
            ],
            "not among them, random": sorted(own.keys() - tensors.keys()),
            "unknown here, dropped": sorted(tensors.keys() - state.keys()),
            "kept": sorted(state.keys() - own.keys()),
        }
