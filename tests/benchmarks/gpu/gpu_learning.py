"""Train the function stage on synthetic subjects, and probe its frozen tokens.

What `tests/benchmarks/learning.py` measures with preset `tiny` on a CPU, for preset `small` on a GPU: in the demo's way, a
group and a score are planted in connectivity. The demo's data packages are not needed: the mean connectivity is drawn, of
17 networks in both hemispheres. Ridge regression reads tokens of people whom no training has seen, and connectivity.
"""

# Shapes: B batch, R ROIs, T frames, N time patches, D width, P people, X numbers that are read of a person

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import gpu_people
import gpu_trainings
import numpy as np
import torch
from gpu_cases import Sizes
from gpu_people import People

from bhx_model.data import volumes
from bhx_model.data.augment import apply_plan, plan_series
from bhx_model.evaluation import readouts
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.training.trained import load_trained
from bhx_model.training.untrained import untrained_function

PENALTIES = np.logspace(-2, 5, 15)
FOLDS, PILOT_STEPS = 5, 10
#: Share of what is left of the time that the training may take.
TRAINING_SHARE = 0.7
#: People trained on and people probed, and the batch; of preset `tiny`, too.
SMALL, TINY = (600, 400, 64), (8, 20, 4)


def write(place: Path, people: People, sizes: Sizes) -> None:
    """Write shards, ``rois.npz`` and the split for a training of the function stage."""
    place.mkdir(parents=True, exist_ok=True)
    values, vectors = np.linalg.eigh(gpu_people.mean_connectivity(sizes.rois))
    metadata = sizes.metadata()
    level = np.concatenate([run for _, run in people.runs[: 2 * FOLDS]], axis=1)
    spread = np.subtract(*np.percentile(level, (75, 25), axis=1)).astype(np.float32)
    dataclasses.replace(
        metadata,
        gradients=(vectors[:, ::-1] * values[::-1])[:, : sizes.gradients].astype(np.float32),
        median=np.median(level, axis=1).astype(np.float32),
        iqr=np.maximum(spread, 1e-3),
    ).save(place / "rois.npz")
    image = volumes.encode(np.zeros(sizes.grid, np.float32))
    n = len(people.runs)
    cohort = gpu_trainings.USUAL
    gpu_trainings.write_cohort(place / cohort, cohort, sizes, n, [image], people.runs)
    subjects = [f"{cohort}/{number:04d}" for number in range(n)]
    (place / "split.json").write_text(json.dumps({"train": subjects, "holdout": []}))


@torch.inference_mode()
def read_tokens(model: FunctionJEPA, people: People, device: torch.device) -> dict[str, np.ndarray]:
    """Readouts of frozen tokens, (P, X) each, in float32."""
    model = model.to(device).eval()
    components = readouts.components_of(model).to(device)
    found: dict[str, list[np.ndarray]] = {"mean": [], "regions": [], "covariance": []}
    for tr_s, run in people.runs:
        plan = plan_series(tr_s, run.shape[1], model.config)
        one = torch.from_numpy(apply_plan(run, plan, model.config))[None].to(device)
        tokens = model.encode(one, plan.patch_frames).unflatten(1, (model.n_rois, -1))
        found["mean"].append(readouts.mean(tokens)[0].cpu().numpy())
        found["regions"].append(readouts.regions(tokens)[0].cpu().numpy())
        found["covariance"].append(readouts.covariance(tokens, components)[0].cpu().numpy())
    return {name: np.stack(rows) for name, rows in found.items()}


def connectivity(people: People) -> np.ndarray:
    """Correlations of all pairs of ROIs, (P, R (R - 1) / 2)."""
    upper = np.triu_indices(len(people.runs[0][1]), k=1)
    return np.stack([np.corrcoef(run)[upper] for _, run in people.runs])


def ridge(x_PX: np.ndarray, y_P: np.ndarray) -> np.ndarray:
    """Predictions (P,) for people who were not fitted, in folds.

    The penalty is chosen by leaving out one of those fitted on at a time.
    """
    order, predicted = np.random.default_rng(0).permutation(len(y_P)), np.zeros(len(y_P))
    for left in np.array_split(order, FOLDS):
        kept = np.setdiff1d(order, left)
        mean, spread = x_PX[kept].mean(axis=0), x_PX[kept].std(axis=0) + 1e-9
        fit, test = (x_PX[kept] - mean) / spread, (x_PX[left] - mean) / spread
        centre = y_P[kept].mean()
        values, vectors = np.linalg.eigh(fit @ fit.T)
        projected = vectors.T @ (y_P[kept] - centre)
        best = (np.inf, np.zeros(len(kept)))
        for penalty in PENALTIES * fit.shape[1] / 100:
            weights = vectors @ (projected / (values + penalty))
            diagonal = ((vectors**2) / (values + penalty)).sum(axis=1)
            error = float(((weights / diagonal) ** 2).mean())  # of leaving out one, in closed form
            best = min(best, (error, weights), key=lambda one: one[0])
        predicted[left] = test @ (fit.T @ best[1]) + centre
    return predicted


def auc(y_P: np.ndarray, predicted_P: np.ndarray) -> float:
    """Area under the curve, by all pairs."""
    difference = predicted_P[y_P == 1][:, None] - predicted_P[y_P == 0][None]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def learning(place: Path, preset: str, device: torch.device, until: float) -> Iterator[dict[str, Any]]:
    """Draw people, train preset `small` on some for as long as there is time, and probe the others.

    Yields
    ------
    dict
        A row of the report for each endpoint and what is read.
    """
    tiny = preset == "tiny"
    n_train, n_probe, batch = TINY if tiny else SMALL
    sizes = dataclasses.replace(Sizes.of(preset), rois=68 if tiny else 400, grid=(32, 48, 32))
    about = {"kind": "learning", "trained_on": n_train, "probed": n_probe, "steps": 0, "batch": batch}
    probed = gpu_people.draw(n_probe, 2, sizes.rois, planted=True)
    yield from _scores(about, "connectivity, all pairs", connectivity(probed), probed)
    home = place / "learning"
    write(home, gpu_people.draw(n_train, 1, sizes.rois, planted=False), sizes)
    steps = PILOT_STEPS
    if not tiny:
        rate = _train(home, "small", PILOT_STEPS, batch)
        # what is left is for the tokens of all people, of two models, and the regression
        steps = max(int((until - time.time()) * TRAINING_SHARE * rate / batch), PILOT_STEPS)
    about |= {"samples_s": _train(home, "tiny" if tiny else "small", steps, batch), "steps": steps}
    trained = load_trained(home / "function", "function")
    models = {"trained": cast(FunctionJEPA, trained.model), "untrained": untrained_function(trained)}
    for name, model in models.items():
        for how, x in read_tokens(model, probed, device).items():
            yield from _scores(about, f"function tokens, {name}, {how}", x, probed)


def _scores(about: dict[str, Any], read: str, x_PX: np.ndarray, people: People) -> Iterator[dict[str, Any]]:
    """Rows of what is read of people."""
    group = ridge(x_PX, people.patient.astype(float))
    yield {**about, "endpoint": "group, AUC", "read": read, "score": auc(people.patient, group)}
    score = ridge(x_PX, people.score)
    r = float(np.corrcoef(people.score, score)[0, 1]) if score.std() else 0.0
    yield {**about, "endpoint": "score, r", "read": read, "score": r}


def _train(home: Path, preset: str, steps: int, batch: int) -> float:
    """Train the function stage, and return the samples per second."""
    changes = {
        "train.steps": steps, "train.batch_size": batch, "train.accumulate": 1, "train.warmup_steps": steps // 10,
        "train.log_every": max(steps // 20, 1), "train.save_every": 10**6, "train.keep_every": 10**6,
        "train.ema": [0.99, 1.0], "train.lr": 5e-4, "model.harmonics": "none",
    }  # fmt: skip
    (row,) = gpu_trainings.training(home, "function", preset, changes=changes, batch=batch)
    return row["samples_s"]
