"""Use trained weights: load an exported folder and embed a subject's scans.

Examples
--------
>>> model = bhx_model.from_pretrained("export")                                      # doctest: +SKIP
>>> tokens = model.embed(series, tr_s=0.735, roi_names=names, t1w=volume)            # doctest: +SKIP
>>> tokens.shape                                                                     # doctest: +SKIP
(128, 768)
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from bhx_model.atomic_write import read_json
from bhx_model.data import augment, shards
from bhx_model.data.rois import RoiMetadata
from bhx_model.data.segments import checked
from bhx_model.errors import DataError
from bhx_model.nets import factory
from bhx_model.nets.fusion import FusionModel
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.nets.mae import StructureMAE
from bhx_model.training import checkpoint

#: Layout of an exported folder.
EXPORT_VERSION = 1
#: Repetition times that a scan of the brain can have, s; anything else is most likely in other units.
TR_RANGE_S = (0.2, 12.0)
#: A T1 whose mean, or whose standard deviation or its inverse, is larger was not normalised; nor was one of which
#: nothing lies below 0.
T1W_LEVEL = 20.0


@dataclasses.dataclass(frozen=True)
class BrainHarmonix:
    """Both encoders and the fusion, or the function encoder alone, ready to embed.

    Attributes
    ----------
    rois : RoiMetadata
        Names in the order of a series' rows, and the statistics that series are scaled by.
    about : dict
        ``config.json`` of the folder.
    """

    structure: StructureMAE | None
    function: FunctionJEPA
    fusion: FusionModel | None
    rois: RoiMetadata
    about: dict[str, Any]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.function.parameters()).device

    def to(self, device: torch.device | str) -> BrainHarmonix:
        """Move the weights, e.g. to ``"cuda"``."""
        for model in (self.structure, self.function, self.fusion):
            if model is not None:
                model.to(device)
        return self

    @torch.inference_mode()
    def embed(
        self,
        series_RT: ArrayLike,
        tr_s: float,
        roi_names: Sequence[str],
        t1w: ArrayLike | None = None,
        segments: Sequence[Sequence[int]] | None = None,
    ) -> NDArray[np.float32]:
        """Embed one subject.

        Parameters
        ----------
        series_RT : array, (R, T)
            Parcel means, before any scaling of ROIs; rows in the order of `roi_names`, a row of NaN where a parcel has
            no coverage. Units and offset make no difference (with ``scaling: population`` they do). More than 635 s
            (18 patches in the base model) are cut off.
        tr_s : float
            Repetition time in seconds.
        roi_names : sequence of str
            R names; they must be the model's, in the model's order (``model.rois.names``).
        t1w : array, (X, Y, Z), optional
            Intensity-normalised T1 on the model's grid; not for the function encoder alone.
        segments : sequence of (int, int), optional
            Of a series from which frames were censored, the ranges that were kept, first and one behind the last, e.g.
            ``[(4, 60), (63, 200)]``; patches then end at the cuts. `segments` of a shard's JSON.

        Returns
        -------
        ndarray, float32
            With a T1 the hub tokens, (H, D). Without, the function tokens, (R, N, D) of the N time patches.

        Raises
        ------
        DataError
            If ROIs, units, lengths or the grid do not fit, with what is wrong and how to fix it.
        """
        self.rois.check_order(tuple(str(name) for name in roi_names))
        check_tr(tr_s)
        config = self.function.config
        series = self._single_precision(series_RT)
        cuts = checked(segments, series.shape[-1] if series.ndim else 0)
        augment.check_series(series, tr_s, len(self.rois), config, cuts)
        self._check_scale(series)
        plan = augment.plan_series(tr_s, series.shape[1], config, segments=cuts)
        cut = torch.from_numpy(augment.apply_plan(series, plan, config))[None].to(self.device)
        function = self.function.encode(cut, plan.patch_frames)
        if t1w is None:
            return function[0].unflatten(0, (len(self.rois), -1)).float().cpu().numpy()
        if self.structure is None or self.fusion is None:
            msg = "these weights are the function encoder alone and take no T1: leave it out for the function tokens"
            raise DataError(msg)
        volume = np.array(t1w, dtype=np.float32, order="C")  # torch takes no reversed axes
        if volume.shape != self.structure.grid:
            msg = f"the T1 has {volume.shape} voxels, the model's grid is {self.structure.grid}: resample and crop it"
            raise DataError(msg)
        if not np.isfinite(volume).all():
            msg = "the T1 holds NaN or infinite values: set the background to a number"
            raise DataError(msg)
        centre, spread, low = float(volume.mean()), float(volume.std()), float(volume.min())
        if abs(centre) > T1W_LEVEL or not 1 / T1W_LEVEL < spread < T1W_LEVEL or low >= 0:
            msg = (
                f"the T1 has mean {centre:.3g}, standard deviation {spread:.3g} and minimum {low:.3g}, it is not "
                "intensity-normalised: bring the brain to mean 0 and standard deviation 1"
            )
            raise DataError(msg)
        structure = self.structure.encode(torch.from_numpy(volume)[None].to(self.device))
        # the fusion was trained on tokens rounded to bfloat16
        hub = self.fusion.encode(structure.bfloat16().float(), function.bfloat16().float(), plan.n_patches)
        return hub[0].float().cpu().numpy()

    def _single_precision(self, series_RT: ArrayLike) -> NDArray[np.float32]:
        """Round series to float32; with scaling ``run`` about their means, so that an offset costs no digits."""
        series = np.asarray(series_RT, dtype=np.float64)
        if self.function.config.scaling == "run" and series.ndim == 2 and series.size:
            known = np.isfinite(series)
            n = np.maximum(known.sum(axis=1, keepdims=True), 1)
            series = series - np.where(known, series, 0).sum(axis=1, keepdims=True) / n
        return series.astype(np.float32)

    def _check_scale(self, series_RT: NDArray[np.float32]) -> None:
        """Refuse series in units other than those of the training data, as far as units matter."""
        covered = ~np.isnan(series_RT).any(axis=1)
        series_RT, median, iqr = series_RT[covered], self.rois.median[covered], self.rois.iqr[covered]
        if self.function.config.scaling == "run":
            # gain and offset of a run make no difference, only what was done to its ROIs one by one does
            if _all_equal(series_RT.std(axis=1)) and not _all_equal(iqr):
                msg = (
                    "every ROI of the series has the same spread, it was standardised by itself: give parcel means, "
                    "the differences between ROIs carry information"
                )
                raise DataError(msg)
            return
        distance = np.median(np.abs(np.median(series_RT, axis=1) - median) / iqr)
        spread = np.median(series_RT.std(axis=1) / iqr)
        if distance > 10 or not 0.01 < spread < 100:
            msg = (
                f"the series lie {distance:.3g} scales from the centre of the training data and vary by {spread:.3g} "
                "scales: give parcel means in the same units and with the same denoising (see the model card)"
            )
            raise DataError(msg)


def _all_equal(spread_R: NDArray[np.floating]) -> bool:
    return len(spread_R) > 1 and bool(np.ptp(spread_R) < 1e-3 * np.mean(spread_R))


def check_tr(tr_s: float) -> None:
    """Refuse a repetition time that is not in seconds.

    Raises
    ------
    DataError
        With what it may be instead.
    """
    low, high = TR_RANGE_S
    if not isinstance(tr_s, numbers.Real):
        msg = f"tr_s is {tr_s!r}: give the repetition time in seconds, as a number"
        raise DataError(msg)
    if math.isfinite(tr_s) and low <= tr_s <= high:
        return
    if math.isfinite(tr_s) and low <= tr_s / 1000 <= high:
        msg = f"tr_s is {tr_s:g}, which looks like milliseconds: give {tr_s / 1000:g}"
    else:
        msg = f"tr_s is {tr_s:g}: give the repetition time in seconds, between {low:g} and {high:g}"
    raise DataError(msg)


def from_pretrained(folder: str | Path) -> BrainHarmonix:
    """Load an exported model.

    Parameters
    ----------
    folder : path
        Written by ``python -m bhx_model.release.export``.

    Raises
    ------
    DataError
        If something is missing in it or does not fit.
    """
    folder = Path(folder)
    try:
        about = read_json(folder / "config.json", "make it with bhx_model.release.export")
        rois = RoiMetadata.load(folder / "rois.npz")
    except OSError as error:
        msg = f"{folder} is no exported model ({error.strerror}: {error.filename}): make it with bhx_model.release.export"
        raise DataError(msg) from error
    if about.get("export") != EXPORT_VERSION:
        msg = f"{folder} is an export of version {about.get('export')}, this code reads {EXPORT_VERSION}: export again"
        raise DataError(msg)
    models: dict[str, nn.Module] = {}
    alone = isinstance(about.get("stages"), dict) and set(about["stages"]) == {"function"}
    for stage in ("function",) if alone else ("structure", "function", "fusion"):
        try:
            described = about["stages"][stage]
            _, models[stage] = factory.model_of(described, folder / "config.json")
            sha256 = described["sha256"]
        except (KeyError, TypeError) as error:
            msg = f"{folder / 'config.json'} does not describe the {stage} stage ({error!r}): export again"
            raise DataError(msg) from error
        weights = folder / f"{stage}.safetensors"
        checkpoint.load_weights(models[stage], weights)
        if shards.file_sha256(weights) != sha256:
            msg = f"{weights} is not the file that was exported (sha256 differs): copy it again, or export again"
            raise DataError(msg)
        models[stage].eval().requires_grad_(False)
    function = cast(FunctionJEPA, models["function"])
    check_rois(function, rois, about["stages"]["function"]["model_metadata"])
    structure, fusion = models.get("structure"), models.get("fusion")
    return BrainHarmonix(
        cast(StructureMAE | None, structure), function, cast(FusionModel | None, fusion), rois, about
    )


def check_rois(function: FunctionJEPA, rois: RoiMetadata, metadata: Mapping[str, Any]) -> None:
    """Refuse `rois` that are not those of the weights: other names or order, normaliser, harmonics or gradients.

    Raises
    ------
    DataError
        If they differ.
    """
    try:
        factory.empty_rois(metadata).check_order(rois.names)
        rois.check_harmonics(metadata["modes"])
    except DataError as error:
        msg = f"the ROIs in rois.npz are not those of the weights: {error}, or use the rois.npz of the same experiment"
        raise DataError(msg) from error
    wanted = dict(FunctionJEPA(function.config, rois).named_buffers())
    for name, buffer in function.named_buffers():
        if (
            ".connectivity." in name
        ):  # taken from runs of the training, along a basis of what is compared here
            continue
        if not torch.equal(buffer.cpu(), wanted[name]):
            msg = f"{name} in the weights is not what rois.npz holds: use the rois.npz of the same experiment"
            raise DataError(msg)
