"""Reconstruct T1 volumes of held-out subjects with the structure stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from bhx_model.atomic_write import read_json
from bhx_model.data import shard_hashes, shards
from bhx_model.data.batch import intensities
from bhx_model.data.shards import Sample
from bhx_model.device import default_device
from bhx_model.inspection.reconstruction import reconstruct
from bhx_model.nets.mae import StructureMAE
from bhx_model.remote.urls import Place
from bhx_model.training.trained import load_trained

#: Subjects whose mean is shown: no fewer of people who were measured, so that a picture is nobody's; no more.
FEWEST_MEASURED, FEWEST_SYNTHETIC, MOST = 10, 2, 32
_BATCH = 4


def inspect(
    structure: Path, split: Path, shard_indices: Sequence[Place]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reconstruct the volumes of subjects who were held out of the training.

    Parameters
    ----------
    structure : Path
        Folder of the trained stage.
    split : Path
        ``pretrain.json`` of the experiment.
    shard_indices : sequence of Path
        Of the cohorts of the training.

    Returns
    -------
    about : dict
        ``n``, ``synthetic``, ``fewest`` (subjects that a picture needs), ``correlation`` (None without pictures),
        ``own_scale`` (whether mean and spread of a patch are those of the hidden one).
    arrays : dict of ndarray
        ``original_0`` to ``original_2``, ``masked_..``, ``filled_..``: middle slices across x, y and z; none where there
        are too few subjects.
    """
    trained = load_trained(structure, "structure")
    device = default_device()
    model = cast(StructureMAE, trained.model).to(device)
    held_out = set(read_json(split, "make the split of the pretraining again")["holdout"])
    indices = [shards.open_index(path) for path in shard_indices]
    chosen: dict[str, Sample] = {}
    for index in indices:
        shard_hashes.verify(index.shards["t1w"])
        for sample in index.samples["t1w"]:
            if sample.subject in held_out:
                chosen.setdefault(sample.subject, sample)
    samples = list(chosen.values())[:MOST]
    synthetic = all(index.synthetic for index in indices)
    fewest = FEWEST_SYNTHETIC if synthetic else FEWEST_MEASURED
    about: dict[str, Any] = {"n": len(samples), "synthetic": synthetic, "fewest": fewest, "correlation": None}
    about["own_scale"] = model.config.norm_pix_loss
    if len(samples) < fewest:
        return about, {}
    found = reconstruct(model, _volumes(samples, model.grid, device))
    arrays = {
        f"{name}_{axis}": picture
        for name, pictures in (
            ("original", found.original),
            ("masked", found.masked),
            ("filled", found.filled),
        )
        for axis, picture in enumerate(pictures)
    }
    return {**about, "correlation": found.correlation}, arrays


def _volumes(samples: Sequence[Sample], grid: tuple[int, int, int], device: torch.device) -> Iterator[Tensor]:
    for first in range(0, len(samples), _BATCH):
        steps = shards.read_t1w(samples[first : first + _BATCH], grid)
        yield intensities(torch.from_numpy(steps).to(device))
