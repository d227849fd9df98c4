"""BHX's own function encoder on real people: pretrained without labels on the train people of a split, read when frozen.

Settings were tried with seed 100, whose 167 test people are another fifth than those of any reported seed (of the same
831 people: there are no more). All that was tried, AUC:

| tokens | mean | regions | components | covariance |
| --- | --- | --- | --- | --- |
| untrained | .686 | .629 | .553 | .688 |
| 300 steps, lr 2e-3, connectivity_weight 1, with TR augmentation | .508 | .668 | .704 | .717 |
| 200 steps, lr 4e-3, connectivity_weight 3, without (`SETTINGS`) | .499 | .672 | .690 | .709 |

The shorter one was taken for what it costs, before these numbers were known; they hardly differ. Connectivity has .744
with these people, and .683 between the 31 components alone. The readout `components` was added before any encoder was
read: correlations of ROIs with 31 components told more in its place than in that of `regions` (seeds 100 to 104, no
encoder: .722 against .700).
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
from bhx_model.data import shards
from bhx_model.data.batch import of_equal_bucket, plan_series, read_runs
from bhx_model.data.rois import RoiMetadata
from bhx_model.device import default_device
from bhx_model.evaluation import readouts
from bhx_model.evaluation.labels import Labels
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.training.trained import load_trained
from bhx_model.training.untrained import untrained_function
from bhx_prep.brain_maps import gradients

#: Changes of any preset. There are a constant and 30 gradients to correlate with; these repetition times are long as
#: they are (1.5 to 3 s), so none is made longer.
MODEL: dict[str, Any] = {
    "model.harmonics": "none",
    "model.connectivity_code": 31,
    "model.connectivity_weight": 3.0,
    "model.tr_augment": False,
}
#: Changes of preset `tiny`.
SETTINGS: dict[str, Any] = MODEL | {
    "train.steps": 200,
    "train.lr": 4.0e-3,
    "train.batch_size": 8,
    "train.save_every": 10000,
    "train.log_every": 50,
}
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


def settings(preset: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Changes of a preset: those of all, of `tiny` also for its training, and those that are given."""
    return {**(SETTINGS if preset == "tiny" else MODEL), **given}


def pretrain(
    people: People, labels: Labels, folder: Path, preset: str, changes: Mapping[str, Any]
) -> Pretrained:
    """Train the function stage on the train people of `labels` alone, whose shards, gradients and normaliser it has."""
    seed = labels.seed
    trained_on = [labels.subjects[i] for i in np.flatnonzero(labels.of("train"))]
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
        folder, "bhx_model.train", "--stage", "function", "--preset", preset, "--set", json.dumps(dict(changes)),
        "--seed", seed, *given, "--rois", folder / "rois.npz", "--run-root", folder / "runs",
        "--out", folder / "function",
    )  # fmt: skip
    check_trained_on(people, labels, index, read_json(folder / "function/run.json", "train again"))
    loaded = load_trained(folder / "function", "function")
    untrained = untrained_function(loaded)
    rois = RoiMetadata.load(folder / "rois.npz")
    return Pretrained(cast(FunctionJEPA, loaded.model), untrained, rois, loaded.run)


def distance_moved(pretrained: Pretrained) -> float:
    """How far the exported encoder lies from its start, as a share of the start's norm."""
    start = torch.cat([p.flatten().cpu() for p in pretrained.untrained.target.parameters()])
    end = torch.cat([p.flatten().cpu() for p in pretrained.trained.target.parameters()])
    return float((end - start).norm() / start.norm())


def weighted(tokens_BRND: Tensor, components_RM: Tensor) -> Tensor:
    """Tokens averaged over time, and over ROIs with the weights of the first 16 components: (B, 16 D)."""
    return torch.einsum(
        "rm,brd->bmd", components_RM[:, : readouts.REGIONS], readouts.rois(tokens_BRND)
    ).flatten(1)


READOUTS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": lambda tokens_BRND, components_RM: readouts.mean(tokens_BRND),
    "regions": lambda tokens_BRND, components_RM: readouts.regions(tokens_BRND),
    "components": weighted,
    "covariance": readouts.covariance,
}


def connectivity_of_components(people: People, components_RM: Tensor, n_rois: int) -> np.ndarray:
    """Correlations of the components' mean series, standardised ROIs weighted by them: (n, M (M-1) / 2)."""
    rows = []
    for sample in people.runs:
        correlations = np.nan_to_num(np.tanh(gradients.connectivity(shards.read_bold(sample, n_rois))))
        np.fill_diagonal(correlations, 1)
        among = components_RM.numpy().T @ correlations @ components_RM.numpy()
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
    place = {sample.key: i for i, sample in enumerate(people.runs)}
    plans = {sample.key: plan_series(sample, model.config) for sample in people.runs}
    device = default_device()
    model, components_RM = model.to(device).eval(), readouts.components_of(model).to(device)
    rows: dict[str, list[Any]] = {name: [None] * len(people) for name in (*READOUTS, "rois")}
    for runs in of_equal_bucket(people.runs, plans, BATCH):
        batch = read_runs(runs, [plans[sample.key] for sample in runs], rois, model.config)
        series_BRT = batch.tensors["series"].to(device)
        tokens_BFD = model.encode(series_BRT, batch.patch_frames, target=target)
        tokens_BRND = tokens_BFD.unflatten(1, (model.n_rois, -1)).float()
        found = {name: readout(tokens_BRND, components_RM) for name, readout in READOUTS.items()}
        for name, values in (found | {"rois": readouts.rois(tokens_BRND)}).items():
            for key, row in zip(batch.keys, values.cpu().numpy(), strict=True):
                rows[name][place[key]] = row
    stacked = {name: np.stack(row) for name, row in rows.items()}
    return stacked, stacked.pop("rois")
