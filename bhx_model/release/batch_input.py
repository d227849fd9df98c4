"""Convert batches of series and volumes to tensors; shorter runs are padded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bhx_model.config import FunctionConfig
from bhx_model.data import augment
from bhx_model.data.rois import RoiMetadata
from bhx_model.errors import DataError
from bhx_model.release.run_checks import check_run
from bhx_model.release.series_input import check_dense, check_digits, numbers_of


def batch_of(value: Any, what: str) -> Tensor:
    """Real numbers as a tensor: a tensor itself, with its gradient; tensors of one shape stacked; else an array's.

    Raises
    ------
    DataError
        If it holds no real numbers, or what is in it differs in shape.
    """
    if isinstance(value, list | tuple) and value and all(hasattr(one, "shape") for one in value):
        shapes = sorted({tuple(one.shape) for one in value})
        if len(shapes) > 1:
            msg = f"{what} has shapes {shapes[0]} and {shapes[1]}: fill the shorter with NaN, or encode one at a time"
            raise DataError(msg)
        if all(isinstance(one, Tensor) for one in value):
            value = torch.stack(list(value))
    if not isinstance(value, Tensor):
        return torch.as_tensor(numbers_of(value, what))
    check_dense(value, what)
    check_digits(value, what)
    return value


def run_lengths(series_BRT: Tensor) -> list[int]:
    """Frames of every run of a batch, up to the last that any ROI has.

    Raises
    ------
    DataError
        If a run is NaN throughout, or infinite somewhere.
    """
    if bool(series_BRT.isinf().any()):
        raise DataError("the batch has infinite values: interpolate them, or set the whole row to NaN")
    known_BT = ~series_BRT.isnan().all(dim=1)
    place_T = torch.arange(1, known_BT.shape[-1] + 1, device=known_BT.device)
    lengths = (known_BT * place_T).amax(dim=-1).tolist()
    if 0 in lengths:
        raise DataError(f"run {lengths.index(0)} of the batch is NaN throughout: leave it out")
    return lengths


def check_runs(series_BRT: Tensor, lengths: Sequence[int], rois: RoiMetadata, config: FunctionConfig) -> None:
    """Refuse a batch of which a run cannot be used: what `embed` refuses of one, this refuses of many.

    Raises
    ------
    DataError
        With the place of the run.
    """
    for place, (series_RT, length) in enumerate(zip(series_BRT.detach().cpu(), lengths, strict=True)):
        try:
            check_run(series_RT[:, :length].double().numpy(), rois, config)
        except DataError as error:
            raise DataError(f"run {place} of the batch: {error}") from error


def by_length(lengths: Sequence[int], one: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Tokens of the runs of every length, back in their order.

    Parameters
    ----------
    lengths : sequence of int, (B,)
    one : callable
        Called with the places of the runs of a length, (b,) int64, and that length; returns (b, R, N, D) or (b, H, D).

    Returns
    -------
    Tensor, (B, R, N, D) or (B, H, D)
        N of the longest run; NaN behind the last of others.
    """
    places = [
        torch.tensor([i for i, n in enumerate(lengths) if n == length]) for length in sorted(set(lengths))
    ]
    found = [one(these, lengths[int(these[0])]) for these in places]
    if len(found) == 1:
        return found[0]
    longest = max(tokens.shape[-2] for tokens in found)
    padded = [F.pad(tokens, (0, 0, 0, longest - tokens.shape[-2]), value=torch.nan) for tokens in found]
    return torch.cat(padded)[torch.argsort(torch.cat(places)).to(padded[0].device)]


def thinned(series_BRT: Tensor, tr_s: float, config: FunctionConfig) -> Tensor:
    """Series at the model's only repetition time, by the same filter as in training; linear, so a matrix.

    Raises
    ------
    DataError
        If a series is shorter than one frame at that repetition time.
    """
    factor = max(round(config.base_tr_s / tr_s), 1)
    if factor == 1:
        return series_BRT
    n_frames = series_BRT.shape[-1]
    if n_frames < factor:
        msg = f"a series of {n_frames} frames at TR {tr_s:g} s has no frame at {config.base_tr_s:g} s: give a longer one"
        raise DataError(msg)
    keep = augment.downsample if config.downsampling == "antialiased" else augment.pick_frames
    matrix = keep(np.eye(n_frames, dtype=np.float32), factor)
    return series_BRT @ torch.from_numpy(matrix).to(series_BRT.device)
