"""Both frozen encoders: from pairs of a BOLD run and a T1 to the tokens that the fusion reads."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from bhx_model.config import FusionInputs, StageConfig
from bhx_model.data import augment, token_index
from bhx_model.data.batch import Batch, Draft, draft_both, draft_runs, draft_volumes, intensities, plan_series
from bhx_model.data.memory import Memory
from bhx_model.data.rois import RoiMetadata
from bhx_model.data.shards import Index, Sample, check_rois
from bhx_model.errors import DataError
from bhx_model.nets.factory import empty_rois
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.nets.mae import StructureMAE
from bhx_model.nets.vit import hold_in_bfloat16
from bhx_model.neutral_settings import decisive
from bhx_model.training.trained import load_trained


@dataclasses.dataclass(frozen=True)
class Encoders:
    """Both frozen encoders: from pairs of a BOLD run and a T1 to pairs of tokens."""

    structure: StructureMAE
    function: FunctionJEPA
    metadata: Mapping[str, Any]
    """Of the function stage: ROI names and sizes."""
    hashes: Mapping[str, str]
    """Of the weights."""
    amp: Mapping[str, str]
    """Precision they were trained in."""
    settings: Mapping[str, Any]
    """What of their configuration decides tokens beside the weights."""

    @classmethod
    def open(cls, structure: Path, function: Path) -> Encoders:
        """Load the encoders from the folders of the trained stages."""
        s, f = load_trained(structure, "structure"), load_trained(function, "function")
        for trained in (s, f):
            if trained.config.train.amp == "bf16":
                hold_in_bfloat16(trained.model)
        return cls(
            cast(StructureMAE, s.model),
            cast(FunctionJEPA, f.model),
            f.run["model_metadata"],
            {"structure": s.sha256, "function": f.sha256},
            {"structure": s.config.train.amp, "function": f.config.train.amp},
            {stage.config.stage: _settings(stage.config) for stage in (s, f)},
        )

    def to(self, device: torch.device) -> Encoders:
        """Move both."""
        return dataclasses.replace(
            self, structure=self.structure.to(device), function=self.function.to(device)
        )

    def autocast(self, device: torch.device, stage: Literal["structure", "function"]) -> torch.autocast:
        """Compute as this encoder was trained."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.amp[stage] == "bf16")

    def check(self, indices: Iterable[Index]) -> None:
        """Refuse shards of another T1 grid or other ROIs than the encoders were trained on.

        Raises
        ------
        DataError
            If they are.
        """
        rois = empty_rois(self.metadata)
        for index in indices:
            check_rois(index, rois)
            shape = index.metadata["t1w_shape"]  # none where no subject has a T1
            if shape is not None and tuple(shape) != self.structure.grid:
                msg = (
                    f"{index.path}: T1 volumes on a grid of {tuple(shape)} voxels, the structure "
                    f"encoder was trained on {self.structure.grid}: set features.t1w_shape accordingly"
                )
                raise DataError(msg)

    def fusion_inputs(self) -> FusionInputs:
        """Sizes of the tokens for the fusion."""
        return FusionInputs(
            structure_grid=self.structure.patches,
            structure_width=self.structure.config.width,
            rois=self.function.n_rois,
            time_patches=self.function.config.time_patches,
            function_width=self.function.config.width,
        )

    def load(self, pairs: Sequence[tuple[Sample, Sample]]) -> Batch:
        """Read pairs of one bucket."""
        return self.draft(pairs, Memory()).read()

    def draft(self, pairs: Sequence[tuple[Sample, Sample]], memory: Memory) -> Draft:
        """Begin to read pairs of one bucket."""
        runs = [run for run, _ in pairs]
        plans = [plan_series(run, self.function.config) for run in runs]
        series = self.draft_runs(runs, plans, memory)
        return draft_both(series, draft_volumes([anat for _, anat in pairs], self.structure.grid, memory))

    def draft_runs(
        self, runs: Sequence[Sample], plans: Sequence[augment.SeriesPlan], memory: Memory
    ) -> Draft:
        """Begin to read the series of runs of one bucket as planned."""
        return draft_runs(runs, plans, self.rois, self.function.config, memory)

    @functools.cached_property
    def rois(self) -> RoiMetadata:
        """Names of the ROIs."""
        return empty_rois(self.metadata)

    @torch.no_grad()
    def encode(self, batch: Batch, *, pad_to: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens of a batch, rounded as the cache rounds them.

        Returns
        -------
        structure : Tensor, (B, S, D) bfloat16
        function : Tensor, (B, R * N, D) bfloat16
        weight : Tensor, (B, R * N) float32
            How much each function token counts; the weights of a sample add up to the number of its tokens.
        """
        volume, series = batch.tensors["volume"], batch.tensors["series"]
        with self.autocast(volume.device, "structure"):
            structure = self.structure.encode(intensities(volume))
        with self.autocast(series.device, "function"):
            function = self.function.encode(series, batch.patch_frames, pad_to=pad_to)
        weight = self.function.token_weights(series, batch.patch_frames)
        return structure.bfloat16(), function.bfloat16(), token_index.even_samples(weight)


def _settings(config: StageConfig) -> dict[str, Any]:
    """What of an encoder's configuration decides its tokens: the same weights with others are another encoder."""
    return {"model": decisive(config.to_dict())["model"], "amp": config.train.amp}
