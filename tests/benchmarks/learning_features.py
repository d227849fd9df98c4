"""Features of each subject for probes: readouts of trained and untrained tokens, and connectivity.

Every encoder is evaluated once. Part of `learning.py`.
"""

# Shapes: N subjects, R ROIs, H tokens, D width, M components

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch
from learning_loss import subject_share
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from bhx_model.config import EvaluationConfig
from bhx_model.data import shards
from bhx_model.data.batch import plan_series
from bhx_model.evaluation import readouts
from bhx_model.evaluation.attentive import attentive_probe
from bhx_model.evaluation.labels import Labels
from bhx_model.nets.fusion import FusionModel
from bhx_model.nets.jepa import FunctionJEPA, effective_rank
from bhx_model.training import checkpoint
from bhx_model.training.encoders import Encoders
from bhx_model.training.stages import Stage
from bhx_model.training.trained import load_trained
from bhx_model.training.untrained import untrained_function
from bhx_prep.brain_maps import gradients

#: What is read.
STRUCTURE, STRUCTURE_0 = "structure", "structure, untrained"
FUNCTION, FUNCTION_0, ONLINE = "function", "function, untrained", "function, trained encoder"
HUB, HUB_0 = "hub tokens", "hub tokens, all untrained"
HUB_FUNCTION_0 = "hub tokens over untrained function"
BOTH = "structure and function, side by side"
FC = "connectivity"
#: How it is read.
MEAN, PLACES, COVARIANCE, ATTENTIVE = "mean", "16 tokens", "covariance", "attentive"
ALL_PAIRS = "all pairs"
#: Runs of neighbouring tokens, and hub tokens of the tiny preset.
N_PLACES = readouts.REGIONS
#: Subjects of each repetition time whose tokens are described.
DESCRIBED = 100

Kind = tuple[str, str]
Pair = tuple[shards.Sample, shards.Sample]


@dataclass
class Tokens:
    """Tokens of everybody by one encoder, rounded as the cache rounds them."""

    of: list[Tensor] = field(default_factory=list)
    """(tokens, D) bfloat16 of each subject."""
    n_patches: list[int] = field(default_factory=list)

    def __getitem__(self, number: int) -> Tensor:
        return self.of[number][None].float()


def pairs(indices: Iterable[Path]) -> list[Pair]:
    """BOLD runs with their T1s, cohort after cohort."""
    samples = [shards.open_index(index).samples for index in indices]
    return [pair for s in samples for pair in shards.pair(s["bold"], s["t1w"])[0]]


def save_untrained(stage: Stage, trained: Path, out: Path) -> None:
    """Write the model of `stage` as it is before its first step, as a folder of a trained stage."""
    known = load_trained(trained, stage.config.stage)
    if stage.config.stage == "function":
        model: nn.Module = untrained_function(known)
    else:
        torch.manual_seed(stage.seed)
        model = stage.build()
    out.mkdir()
    shutil.copy(trained / "run.json", out)
    checkpoint.save_tensors(model.state_dict(), out / "model.safetensors")


@torch.no_grad()
def encode(subjects: Sequence[Pair], trained: Encoders, untrained: Encoders) -> dict[str, Tokens]:
    """Tokens of everybody by the trained and the untrained encoders, and by the trained one that is not the EMA."""
    found = {name: Tokens() for name in (STRUCTURE, STRUCTURE_0, FUNCTION, FUNCTION_0, ONLINE)}
    for pair in subjects:
        batch = trained.load([pair])
        structure, function, _ = trained.encode(batch)
        structure_0, function_0, _ = untrained.encode(batch)
        online = trained.function.encode(batch.tensors["series"], batch.patch_frames, target=False)
        tokens = (structure, structure_0, function, function_0, online.bfloat16())
        for one, values in zip(found.values(), tokens, strict=True):
            one.of.append(values[0])
            one.n_patches.append(batch.n_patches)
    return found


@torch.no_grad()
def encode_hub(
    fusion: FusionModel, structure: Tokens, function: Tokens, series_of: Sequence[int]
) -> list[Tensor]:
    """Hub tokens of everybody's T1 with the series of those named, each (1, H, D)."""
    return [
        fusion.encode(structure[number], function[other], function.n_patches[other])
        for number, other in enumerate(series_of)
    ]


def places(tokens: Tensor, n: int = N_PLACES) -> np.ndarray:
    """Means of `n` runs of neighbouring tokens, beside each other; of as many hub tokens, themselves."""
    return torch.cat([run.mean(dim=1) for run in tokens.tensor_split(n, dim=1)], dim=1)[0].numpy()


def read_function(name: str, tokens: Tokens, model: FunctionJEPA) -> dict[Kind, np.ndarray]:
    """Numbers of each subject by readout of function tokens, (n, numbers)."""
    weights_RM = readouts.components_of(model)
    by_subject = [tokens[i].unflatten(1, (model.n_rois, -1)) for i in range(len(tokens.of))]
    return {
        (name, MEAN): torch.cat([readouts.mean(one) for one in by_subject]).numpy(),
        (name, PLACES): torch.cat([readouts.regions(one) for one in by_subject]).numpy(),
        (name, COVARIANCE): torch.cat([readouts.covariance(one, weights_RM) for one in by_subject]).numpy(),
    }


def read_structure(name: str, tokens: Tokens) -> dict[Kind, np.ndarray]:
    """Numbers of each subject by readout of T1 tokens."""
    by_subject = [tokens[i] for i in range(len(tokens.of))]
    return {
        (name, MEAN): np.stack([one.mean(dim=1)[0].numpy() for one in by_subject]),
        (name, PLACES): np.stack([places(one) for one in by_subject]),
    }


def read_hub(name: str, tokens: Sequence[Tensor]) -> dict[Kind, np.ndarray]:
    """Numbers of each subject by readout of hub tokens."""
    return {
        (name, MEAN): np.stack([one.mean(dim=1)[0].numpy() for one in tokens]),
        (name, PLACES): np.stack([places(one) for one in tokens]),
        (name, COVARIANCE): torch.cat([readouts.hub_covariance(one) for one in tokens]).numpy(),
    }


def side_by_side(structure: Tokens, function: Tokens, series_of: Sequence[int]) -> dict[Kind, np.ndarray]:
    """Both means, and 8 and 8 of the 16 tokens."""
    both = [(structure[i], function[other]) for i, other in enumerate(series_of)]
    return {
        (BOTH, MEAN): np.stack([np.concatenate([t.mean(dim=1)[0].numpy() for t in two]) for two in both]),
        (BOTH, PLACES): np.stack([np.concatenate([places(t, N_PLACES // 2) for t in two]) for two in both]),
    }


def describe(tokens: Tokens, subjects: Sequence[Pair], encoders: Encoders, n_rois: int) -> dict[str, float]:
    """Effective rank of tokens, and what `subject_share` says of them, means over repetition times."""
    buckets = [plan_series(run, encoders.function.config).bucket for run, _ in subjects]
    found = []
    for bucket in sorted(set(buckets)):
        of_bucket = [i for i, other in enumerate(buckets) if other == bucket][:DESCRIBED]
        if len(of_bucket) < 2:
            continue
        chosen = torch.stack([tokens.of[i].float().unflatten(0, (n_rois, -1)) for i in of_bucket])
        found.append((effective_rank(chosen.flatten(0, 2)).item(), *subject_share(chosen)))
    names = (
        "effective rank",
        "variance between subjects / all",
        "of that, correlation of a run's halves",
    )
    return dict(zip(names, np.mean(found, axis=0).tolist(), strict=True))


def connectivity(subjects: Sequence[Pair], index: Path) -> np.ndarray:
    """Fisher-z connectivity of each subject, (n, pairs of ROIs)."""
    n_rois = len(shards.open_index(index).metadata["roi_names"])
    upper = np.triu_indices(n_rois, k=1)
    rows = [gradients.connectivity(shards.read_bold(run, n_rois))[upper] for run, _ in subjects]
    return np.stack(rows).astype(np.float32)


def folds(n: int, repeats: int = 5) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Subjects fitted on and subjects predicted: 5 folds, 5 times."""
    for repeat in range(repeats):
        yield from KFold(5, shuffle=True, random_state=repeat).split(np.zeros(n))


def probe(x: np.ndarray, targets: np.ndarray, principal: int | None = None) -> np.ndarray:
    """Predictions for everyone from subjects who are not themselves, means of 5 repeats: (n, targets).

    Numbers are standardised, for ridge regression whose penalty is chosen within the subjects it is fitted on; of
    `principal` components of these subjects, if a number is given.
    """
    predicted = np.zeros(targets.shape)
    for fit, test in folds(len(x)):
        scaler = StandardScaler().fit(x[fit])
        a, b = scaler.transform(x[fit]), scaler.transform(x[test])
        if principal is not None:
            # by the subjects' products: there are far more pairs of ROIs than subjects
            values, vectors = np.linalg.eigh((a @ a.T).astype(np.float64))
            kept = values.argsort()[::-1][:principal]
            a, b = vectors[:, kept] * values[kept] ** 0.5, (b @ a.T) @ vectors[:, kept] / values[kept] ** 0.5
        ridge = RidgeCV(np.logspace(0, 6, 13), alpha_per_target=True).fit(a, targets[fit])
        predicted[test] += ridge.predict(b).reshape(-1, targets.shape[1]) / 5
    return predicted


def probe_attentively(
    tokens_NHD: np.ndarray, diagnosis: np.ndarray, score: np.ndarray, seed: int
) -> np.ndarray:
    """Predictions as `probe` makes them, by a learned query over tokens, once: (n, 2)."""
    n = len(tokens_NHD)
    predicted = np.zeros((n, 2))
    settings = EvaluationConfig(epochs=20, warmup_epochs=2, batch_size=32)
    for fit, test in folds(n, repeats=1):
        split = np.full(n, "test", dtype="<U5")
        split[fit] = "train"
        split[fit[::5]] = "val"
        for column, (target, classes) in enumerate(((diagnosis.astype(np.int64), ["0", "1"]), (score, []))):
            labels = Labels(
                "benchmark",
                "patients",
                "binary" if classes else "regression",
                classes,
                seed,
                [str(i) for i in range(n)],
                target,
                split,
            )
            found, _ = attentive_probe(labels, tokens_NHD, 4, settings, seed)
            predicted[test, column] = found[test, -1]
    return predicted


def load_fusion(folder: Path) -> FusionModel:
    """A trained fusion, for evaluation."""
    return cast(FusionModel, load_trained(folder, "fusion").model)
