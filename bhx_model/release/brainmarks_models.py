"""Exports as backbones of Brainmarks, the suite that evaluates fMRI models; in a wheel ``brainmarks.models.bhx``.

::

    BHX_WEIGHTS=FOLDER python -m brainmarks.main_logistic bhx patch abide_dx
    BHX_WEIGHTS=FOLDER python -m brainmarks.main_probe bhx patch linear abide_dx

`FOLDER` is an export, ``org/name`` of the Hub, or what ``python -m bhx_model.compat load`` made of released weights.
Brainmarks' series are those of Schaefer's 400 parcels in CBIG's order of 17 networks, so the weights' have to be.

Representations: ``patch`` are the function encoder's tokens; ``reg`` the hub tokens, for which everybody has the T1 of the
template, since Brainmarks has none: they say what the fusion makes of the function.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from brainmarks.models.base import Embeddings  # pyright: ignore[reportMissingImports]
from brainmarks.models.registry import register_model  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn

from bhx_model.config import FunctionConfig, load_preset
from bhx_model.data.rois import RoiMetadata
from bhx_model.errors import ConfigError, DataError
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.release.embed import BrainHarmonix
from bhx_model.training.trained import load_trained

logger = logging.getLogger(__name__)

#: Parcels of Brainmarks' space ``schaefer400``.
N_ROIS: Final = 400
#: How a name of the 17-network order begins, left and right, and where: what tells it from the 7-network order.
_SEVENTEEN: Final = {0: "17Networks_LH_", N_ROIS // 2: "17Networks_RH_"}
#: Runs, the first ones, that the scale of a training set is taken from.
_FITTED: Final = 2000


class BackboneTransform:
    """Sample of Brainmarks -> series in the units that the weights expect.

    Parameters
    ----------
    model : BrainHarmonix
        Weights of scaling ``run`` need no units. Others were scaled by statistics of their training set; `fit` maps the
        median and the interquartile range of every ROI in Brainmarks' training split onto them.
    """

    def __init__(self, model: BrainHarmonix) -> None:
        rois = model.rois
        self.needs_fit = model.function.config.scaling != "run"
        self._wanted = rois.median.astype(np.float64), rois.iqr.astype(np.float64)
        self._found = self._wanted

    def fit(self, train_dataset: Iterable[dict[str, Any]]) -> None:
        """Take median and interquartile range of every ROI from the training split."""
        if not self.needs_fit:
            return
        means, spreads = [], []
        for number, sample in enumerate(train_dataset):
            if number == _FITTED:
                break
            series = _raw(sample).double()
            low, centre, high = torch.quantile(series, torch.tensor([0.25, 0.5, 0.75]).double(), dim=0)
            means.append(centre)
            spreads.append(high - low)
        median, iqr = torch.stack(means).median(dim=0).values, torch.stack(spreads).median(dim=0).values
        self._found = median.numpy(), np.where(iqr.numpy() > 0, iqr.numpy(), 1.0)

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Return ``series`` (ROIs, frames) float32 and ``tr`` in s, and the keys that are not of the raw series."""
        series = _raw(sample).T
        still = (series == series[:, :1]).all(dim=1, keepdim=True)
        series = torch.where(
            still, torch.nan, series
        )  # a parcel without coverage, which Brainmarks has constant
        if self.needs_fit:
            (median, iqr), (centre, scale) = self._wanted, self._found
            gain = torch.from_numpy(iqr / scale)[:, None]
            series = (series - torch.from_numpy(centre)[:, None]) * gain + torch.from_numpy(median)[:, None]
        kept = {k: v for k, v in sample.items() if k not in ("bold", "mean", "std")}
        return {**kept, "series": series.float().contiguous(), "tr": float(sample["tr"])}


class Backbone(nn.Module):
    """Tokens of a batch: ``reg`` hub tokens where there is a fusion and a template, ``patch`` function tokens.

    Parameters
    ----------
    model : BrainHarmonix
    """

    __space__ = "schaefer400"
    template: Tensor | None

    def __init__(self, model: BrainHarmonix) -> None:
        super().__init__()
        self.model = model
        template = _template_t1w(model)
        self.register_buffer("template", template, persistent=False)

    def forward(self, batch: dict[str, Tensor]) -> Embeddings:
        """Embed; gradients reach the weights.

        Raises
        ------
        DataError
            If the runs of a batch have several repetition times, or no whole number of tokens.
        """
        times = torch.unique(torch.as_tensor(batch["tr"], dtype=torch.float64).cpu())
        if len(times) != 1:
            msg = f"a batch has runs of {len(times)} repetition times: set batch_size=1, or resample them"
            raise DataError(msg)
        # BHX says how precise it computes; under bfloat16's autocast short sums would be all that is left of a filter
        with torch.autocast(device_type=batch["series"].device.type, enabled=False):
            tokens_BRND = self.model.encode_series(batch["series"], float(times))
            patch_BLD = tokens_BRND.flatten(1, 2)
            hub_BHD = None
            if self.template is not None and self.model.structure is not None:
                structure_1SD = self.model.structure.encode(self.template)  # no person's, so nothing to check
                structure_BSD = structure_1SD.expand(len(patch_BLD), -1, -1)
                hub_BHD = self.model.fuse(structure_BSD, patch_BLD, tokens_BRND.shape[2])
        return Embeddings(None, hub_BHD, patch_BLD)


def _raw(sample: dict[str, Any]) -> Tensor:
    """Series (frames, ROIs) before Brainmarks divided every ROI by its own deviation, which carries information."""
    return cast(Tensor, sample["bold"] * sample["std"] + sample["mean"])


def _template_t1w(model: BrainHarmonix) -> Tensor | None:
    """T1 of the template on the model's grid, (1, X, Y, Z); None where the weights have no fusion, or no template."""
    if model.fusion is None or model.structure is None or model.t1w_space is None:
        return None
    return torch.from_numpy(model.t1w_space.template_volume())[None]


def check_rois(rois: RoiMetadata) -> None:
    """Refuse weights of other ROIs than Schaefer's 400 parcels in 17-network order; numbered ones are taken for them.

    Raises
    ------
    ConfigError
        If they are of others.
    """
    if len(rois) == N_ROIS and rois.names[0] == "roi-1":  # of released weights, which came without names
        return
    if len(rois) != N_ROIS or not all(rois.names[i].startswith(start) for i, start in _SEVENTEEN.items()):
        msg = (
            f"Brainmarks has Schaefer's 400 parcels in 17-network order, the weights are of {len(rois)} ROIs from "
            f"{rois.names[0]} on: use others"
        )
        raise ConfigError(msg)


def open_weights(weights: str) -> BrainHarmonix:
    """Load an export, or what ``bhx_model.compat load`` made.

    Released weights came without the statistics of their scaling: every run is scaled by its own.

    Raises
    ------
    DataError, ConfigError, SiteError
        As `bhx_model.from_pretrained`; or if the ROIs are others.
    """
    folder = Path(weights)
    if (folder / "function" / "run.json").is_file() and (folder / "rois.npz").is_file():
        function = cast(FunctionJEPA, load_trained(folder / "function", "function").model)
        function.normaliser.scaling = "run"
        model = BrainHarmonix(function, RoiMetadata.load(folder / "rois.npz"), {"stages": {"function": {}}})
    else:
        model = BrainHarmonix.from_pretrained(weights)
    check_rois(model.rois)
    return model.eval()


def _untrained() -> BrainHarmonix:
    """Untrained weights of preset tiny for ROIs without a place: for Brainmarks' own test, which names no weights."""
    logger.warning(
        "bhx: no weights are named (BHX_WEIGHTS=FOLDER): untrained ones, whose scores mean nothing"
    )
    names = [f"17Networks_{'LR'[i // (N_ROIS // 2)]}H_{i + 1}" for i in range(N_ROIS)]
    places = np.random.default_rng(0).standard_normal((N_ROIS, 4)).astype(np.float32)
    rois = RoiMetadata(
        atlas="untrained", names=tuple(names), hemisphere=(np.arange(N_ROIS) >= N_ROIS // 2).astype(np.int8),
        harmonics=places, eigenvalues=np.zeros((2, 4)), gradients=places,
        median=np.zeros(N_ROIS, np.float32), iqr=np.ones(N_ROIS, np.float32),
    )  # fmt: skip
    config = load_preset("function", "tiny").model
    assert isinstance(config, FunctionConfig)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        function = FunctionJEPA(config, rois)
    return BrainHarmonix(function, rois, {"stages": {"function": {}}}).eval()


@register_model
def bhx(weights: str | None = None) -> tuple[BackboneTransform, Backbone]:
    """Backbone of an export; Brainmarks calls it.

    Parameters
    ----------
    weights : str, optional
        Folder or ``org/name``, as in ``--overrides model_kwargs.weights=FOLDER``; the environment's ``BHX_WEIGHTS`` if None.
    """
    weights = weights or os.environ.get("BHX_WEIGHTS")
    model = open_weights(weights) if weights else _untrained()
    return BackboneTransform(model), Backbone(model)
