"""BHX's own function encoder on real people: pretrained without labels on the train people of a split, read when frozen.

Settings were looked for with seeds of 100 and above, whose divisions are others than those that are reported (of the
same people: there are no more); `abide_tries.md` has all that were looked at, also those that were no better.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from abide_people import People, check_trained_on, run, write_shards_of
from torch import Tensor, nn

from bhx_model.atomic_write import read_json, write_json
from bhx_model.config import load_preset
from bhx_model.data import augment, shards
from bhx_model.data.batch import plan_series, read_series
from bhx_model.data.rois import RoiMetadata
from bhx_model.data.shards import Sample
from bhx_model.evaluation.labels import Labels
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.training import stages
from bhx_model.training.trained import load_trained
from bhx_prep.brain_maps import gradients

#: Changes of preset `tiny`.
SETTINGS: dict[str, Any] = {
    "model.harmonics": "none",
    "model.connectivity_code": 31,
    "train.batch_size": 8,
    "train.save_every": 10000,
    "train.log_every": 50,
}
#: Runs of neighbouring ROIs of the readout `regions`.
REGIONS = 16
#: Series encoded at a time.
BATCH = 8


@dataclass(frozen=True)
class Pretrained:
    """An encoder with what it was trained on."""

    trained: FunctionJEPA
    untrained: FunctionJEPA
    """The same configuration and seed before the first step."""
    rois: RoiMetadata
    run: Mapping[str, Any]


def pretrain(people: People, labels: Labels, folder: Path, settings: Mapping[str, Any]) -> Pretrained:
    """Train the function stage on the train people of `labels` alone, whose shards, gradients and normaliser it has."""
    seed, trained_on = (
        labels.seed,
        [s for s, part in zip(labels.subjects, labels.split, strict=True) if part == "train"],
    )
    index = write_shards_of(people.index, trained_on, folder / "shards")
    write_json(folder / "split.json", {"train": trained_on, "holdout": []})
    given = ["--shards", index, "--split", folder / "split.json"]
    run(folder, "bhx_prep.brain_maps.gradients", *given, "--out", folder / "gradients.parquet")
    run(folder, "bhx_prep.brain_maps.normaliser", *given, "--out", folder / "normaliser.parquet")
    run(
        folder, "bhx_prep.brain_maps.join", "--atlas", people.index.parents[2] / "templates/atlas.json",
        "--gradients", folder / "gradients.parquet", "--normaliser", folder / "normaliser.parquet",
        "--out", folder / "rois.npz",
    )  # fmt: skip
    run(
        folder, "bhx_model.train", "--stage", "function", "--preset", "tiny", "--set", json.dumps(dict(settings)),
        "--seed", seed, *given, "--rois", folder / "rois.npz", "--run-root", folder / "runs",
        "--out", folder / "function",
    )  # fmt: skip
    check_trained_on(people, labels, index, read_json(folder / "function/run.json", "train again"))
    loaded = load_trained(folder / "function", "function")
    config = load_preset("function", "tiny").override(settings)
    sources = stages.Sources(shards=[index], split=folder / "split.json", rois=folder / "rois.npz")
    torch.manual_seed(seed)
    untrained = (
        cast(FunctionJEPA, stages.open_stage(config, sources, seed).build()).eval().requires_grad_(False)
    )
    rois = RoiMetadata.load(folder / "rois.npz")
    return Pretrained(cast(FunctionJEPA, loaded.model), untrained, rois, loaded.run)


def distance_moved(pretrained: Pretrained) -> float:
    """How far the exported encoder lies from its start, as a share of the start's norm."""
    start = torch.cat([p.flatten() for p in pretrained.untrained.target.parameters()])
    end = torch.cat([p.flatten() for p in pretrained.trained.target.parameters()])
    return float((end - start).norm() / start.norm())


def mean(tokens_RND: Tensor, components_RK: Tensor) -> np.ndarray:
    """Mean over all tokens: (D,)."""
    return tokens_RND.mean(dim=(0, 1)).numpy()


def regions(tokens_RND: Tensor, components_RK: Tensor) -> np.ndarray:
    """Means of 16 runs of neighbouring ROIs, beside each other: (16 * D,)."""
    return np.concatenate(
        [part.mean(axis=0) for part in np.array_split(tokens_RND.mean(dim=1).numpy(), REGIONS)]
    )


def weighted(tokens_RND: Tensor, components_RK: Tensor) -> np.ndarray:
    """Means over time, weighted over ROIs by the first 16 components, beside each other: (16 * D,)."""
    return (components_RK[:, :REGIONS].T @ tokens_RND.mean(dim=1)).flatten().numpy()


def covariance(tokens_RND: Tensor, components_RK: Tensor) -> np.ndarray:
    """Second moments, over time and channels, of components of the tokens without their mean over time: (K (K+1) / 2,)."""
    n_patches, width = tokens_RND.shape[1:]
    most = n_components(REGIONS * width, components_RK.shape[1])
    centred = tokens_RND - tokens_RND.mean(dim=1, keepdim=True)
    series_KF = torch.einsum("rk,rnd->knd", components_RK[:, :most], centred).flatten(1)
    moments_KK = (series_KF @ series_KF.T).numpy() / n_patches
    return moments_KK[np.triu_indices(most)]


def n_components(numbers: int, there: int) -> int:
    """The most components whose second moments are at most so many numbers."""
    return min(int(((8 * numbers + 1) ** 0.5 - 1) / 2), there)


READOUTS: Mapping[str, Callable[[Tensor, Tensor], np.ndarray]] = {
    "mean": mean,
    "regions": regions,
    "components": weighted,
    "covariance": covariance,
}


def components(model: FunctionJEPA) -> Tensor:
    """Orthonormal components of what the position code knows of the ROIs, a constant first: (R, K)."""
    columns_RC = model.target.roi_position.columns()
    return torch.linalg.qr(torch.cat([torch.ones(len(columns_RC), 1), columns_RC], dim=1).double())[0].float()


def connectivity_of_components(people: People, components_RK: Tensor, n_rois: int) -> np.ndarray:
    """Correlations of the components' mean series, standardised ROIs weighted by them: (n, K (K-1) / 2)."""
    rows = []
    for sample in people.runs:
        correlations = np.nan_to_num(np.tanh(gradients.connectivity(shards.read_bold(sample, n_rois))))
        np.fill_diagonal(correlations, 1)
        among = components_RK.numpy().T @ correlations @ components_RK.numpy()
        length = np.sqrt(among.diagonal())
        rows.append((among / length / length[:, None])[np.triu_indices(len(among), k=1)])
    return np.stack(rows).astype(np.float32)


def with_code_at_random(model: FunctionJEPA, seed: int) -> FunctionJEPA:
    """A copy whose connectivity code enters the tokens by random weights, at about the size of a patch."""
    model = copy.deepcopy(model)
    code = model.target.connectivity
    assert code is not None
    generator = torch.Generator().manual_seed(seed)
    nn.init.normal_(code.map.weight, std=code.map.in_features**-0.5, generator=generator)
    return model


@torch.no_grad()
def read_tokens(
    people: People, model: FunctionJEPA, rois: RoiMetadata, *, target: bool = True
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What each readout gives of everybody's tokens, (n, numbers), and the tokens' means over time, (n, R, D)."""
    rows: dict[str, list[Any]] = {name: [None] * len(people) for name in READOUTS}
    over_time: list[Any] = [None] * len(people)
    components_RK = components(model)
    for (frames, _), members in by_bucket(people, model).items():
        for start in range(0, len(members), BATCH):
            part = members[start : start + BATCH]
            series = torch.stack([load(people.runs[i], model, rois) for i in part])
            tokens_BRND = model.encode(series, frames, target=target).unflatten(1, (model.n_rois, -1)).float()
            for i, tokens_RND in zip(part, tokens_BRND, strict=True):
                over_time[i] = tokens_RND.mean(dim=1).numpy()
                for name, readout in READOUTS.items():
                    rows[name][i] = readout(tokens_RND, components_RK)
    return {name: np.stack(row) for name, row in rows.items()}, np.stack(over_time)


def by_bucket(people: People, model: FunctionJEPA) -> dict[tuple[int, int], list[int]]:
    """Who has the same frames of a patch and number of patches."""
    buckets: dict[tuple[int, int], list[int]] = {}
    for i, sample in enumerate(people.runs):
        buckets.setdefault(plan_series(sample, model.config).bucket, []).append(i)
    return buckets


def load(sample: Sample, model: FunctionJEPA, rois: RoiMetadata) -> Tensor:
    """The series as the encoder takes it, (R, frames)."""
    plan = plan_series(sample, model.config)
    return torch.from_numpy(augment.apply_plan(read_series(sample, rois, model.config), plan, model.config))
