"""Experiments with the function stage on synthetic subjects: which settings learn, the failed ones included.

    python tests/benchmarks/function_stage.py --list
    python tests/benchmarks/function_stage.py --seeds 2 shipped plain          # some
    python tests/benchmarks/function_stage.py --jobs 2                         # all

Every experiment changes one thing of `plain`, the JEPA as published with a target that moves, or of `shipped`, preset
`tiny`. It trains on unlabelled subjects drawn as the demo's cohort `pretraining` and reads 640 subjects drawn as
`patients`: ridge regressions on frozen tokens of the target encoder, penalty chosen within the fitted subjects, 5 folds,
twice. Position codes are gradients alone. `mean` is the mean over all tokens (64 numbers), `regions` the means of 16 runs
of neighbouring ROIs (1,024), `covariance` the second moments of the tokens' component series (up to 496).

Synthetic data; no part of the test suite. docs/explanation/learning.md holds the table and what follows from it.
"""

from __future__ import annotations

import argparse
import functools
import math
import multiprocessing
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "workflow"))

from bhx_model.config import FunctionConfig, load_preset
from bhx_model.data import augment, loader, masking
from bhx_model.data.rois import RoiMetadata
from bhx_model.evaluation import readouts
from bhx_model.nets.connectivity import whitening_loss
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.nets.vit import gather_tokens
from bhx_model.training import optim, schedules
from bhx_prep.brain_maps import gradients
from bhx_prep.demo import timeseries

PROBED = 640
#: Seeds of those who are drawn: other subjects than the demo's and those of learning.py.
PRETRAINING_SEED, PROBED_SEED = 7, 1
Targets = Literal["token", "batch", "roi", "layers"]
#: What `plain` is without.
OFF = {"model.connectivity_code": 0, "model.connectivity_weight": 0.0, "model.whitening_weight": 0.0}


@dataclass(frozen=True)
class Experiment:
    """One change, and why it was thought of."""

    why: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Of the stage's configuration."""
    people: int | None = None
    targets: Targets = "token"
    """What targets are standardised by: each token (published), each channel over the batch, or also each ROI; or the
    mean of both layers' tokens."""
    terms: Mapping[str, float] = field(default_factory=dict)
    """Weights of terms that are tried here only."""
    position: float = 1.0
    """Factor of the position code."""
    code: Literal["learned", "closed", "open"] = "learned"
    """Map of the connectivity code: learned from zero, kept at zero, or random and large from the start."""
    jepa: float = 1.0
    """Weight of the JEPA's loss."""


def plain(why: str, changes: Mapping[str, Any] | None = None, **more: Any) -> Experiment:
    """A change of the published JEPA."""
    return Experiment(why, {**OFF, **(changes or {})}, **more)


EXPERIMENTS: dict[str, Experiment] = {
    "untrained": plain("what random weights give", {"train.steps": 0}),
    "standing target": plain(
        "the former preset tiny: its target moves 5 % of the way",
        {"train.ema": [0.999, 1.0], "train.lr": 4e-3, "train.steps": 100},
    ),
    "plain": plain("the published JEPA, with a target that moves"),
    "shipped": Experiment("preset tiny"),
    "code, untrained": Experiment("the code through a random map of size 1", {"train.steps": 0}, code="open"),
    "code alone": Experiment(
        "does the JEPA take the code up by itself?",
        {"model.connectivity_weight": 0.0, "model.whitening_weight": 0.0},
    ),
    "no whitening": Experiment("code and its prediction", {"model.whitening_weight": 0.0}),
    "no code": Experiment("predict connectivity from tokens without a code", code="closed"),
    "whitening alone": plain("whitened patches beside the JEPA", {"model.whitening_weight": 1.0}),
    "no JEPA": Experiment("code, prediction and whitening without the JEPA's loss", jepa=0.0),
    "28 people": Experiment("as many as the demo's", people=28),
    "100 steps": Experiment("fewer steps", {"train.steps": 100}),
    "600 steps": Experiment("more steps", {"train.steps": 600}),
    "plain, 600 steps": plain("is it a matter of steps?", {"train.steps": 600}),
    "targets over the batch": plain("channels that all tokens share count for nothing", targets="batch"),
    "targets by ROI": plain("what an ROI has in all subjects counts for nothing", targets="roi"),
    "deeper targets": plain("mean of both layers' tokens", targets="layers"),
    "other ROIs only": plain(
        "all times are seen: neither neighbours in time nor the next moment are asked for",
        {"model.mask_context_times": [1.0, 1.0]},
    ),
    "most ROIs hidden": plain("few ROIs to predict many from", {"model.mask_target_rois": [0.6, 0.8]}),
    "small position code": plain("series against places", position=0.3),
    "large predictor": plain(
        "is the predictor too small?",
        {"model.predictor_width": 64, "model.predictor_depth": 3, "model.predictor_heads": 2},
    ),
    "low rate": plain("a quarter of the rate", {"train.lr": 5e-4}),
    "high decay": plain("weight decay of 0.4 from the start", {"train.weight_decay": 0.4}),
    "no TR augmentation": plain("one TR for each subject", {"model.tr_augment": False}),
    "short patches": plain("17.6 s instead of 35.3 s", {"model.base_patch": 24}),
    "white tokens": plain(
        "the log-determinant of tokens instead of patches (against collapse, as VICReg)",
        terms={"tokens": 1.0},
    ),
    "reconstruction": plain("predict the hidden patches themselves, too", terms={"patches": 1.0}),
    "same person": plain(
        "tell the subjects of a batch apart by two parts of their runs",
        {"train.batch_size": 8},
        terms={"person": 0.3},
    ),
    "fast target": Experiment("shipped with a faster target", {"train.ema": [0.95, 1.0]}),
    "slow target": Experiment("shipped with a slower target", {"train.ema": [0.99, 1.0]}),
}


class Tried(FunctionJEPA):
    """The model with what is tried here only."""

    def __init__(self, config: FunctionConfig, rois: RoiMetadata, experiment: Experiment) -> None:
        super().__init__(config, rois)
        self.experiment = experiment
        self.patch_head = nn.Linear(config.width, config.width)
        for encoder in (self.encoder, self.target):
            position = encoder.position
            encoder.position = functools.partial(  # type: ignore[method-assign]
                lambda n, position: experiment.position * position(n), position=position
            )
            if encoder.connectivity is None or experiment.code == "learned":
                continue
            if experiment.code == "open":
                nn.init.normal_(encoder.connectivity.map.weight, std=config.connectivity_code**-0.5)
            encoder.connectivity.map.requires_grad_(False)
        if experiment.code == "open":
            self.target.load_state_dict(self.encoder.state_dict())

    def forward(self, series_BRT: Tensor, k: int, context_BC: Tensor, target_BU: Tensor, **_: Any) -> Any:
        """Objective and stats, with the terms of the experiment."""
        tried = self.experiment
        done = self._predict(series_BRT, k, context_BC, target_BU)
        context_BCD, predicted_BUD = done.context_BCD, done.predicted_BUD
        scaled_BRT = self.normaliser(series_BRT)
        wanted_BUD = self.standardised(done.wanted_BUD, scaled_BRT, k, target_BU)
        loss = self.sample_losses(predicted_BUD, wanted_BUD, done.weight_BU).mean()
        terms: dict[str, tuple[float, Tensor]] = {}
        if self.connectivity_head is not None:
            found = self._connectivity_losses(done, context_BC)["connectivity_loss"]
            terms["connectivity"] = self.config.connectivity_weight, found
        if self.config.whitening_weight:
            patches_BPK = scaled_BRT.unflatten(-1, (-1, k)).flatten(1, 2)
            found = whitening_loss(patches_BPK, self.encoder.patch_embed.kernel(k)).mean()
            terms["whitening"] = self.config.whitening_weight, found
        for name, weight in tried.terms.items():
            if name == "tokens":
                centred_BCD = context_BCD - context_BCD.mean(dim=(0, 1))
                all_DD = torch.eye(centred_BCD.shape[-1], device=centred_BCD.device)
                found = whitening_loss(centred_BCD, all_DD).mean()
            elif name == "patches":
                with torch.no_grad():
                    hidden_BUD = gather_tokens(
                        self.target.patch_embed.content(scaled_BRT, k).flatten(1, 2), target_BU
                    )
                found = F.smooth_l1_loss(self.patch_head(predicted_BUD), hidden_BUD)
            else:
                found = self.same_person(context_BCD)
            terms[name] = weight, found
        objective = tried.jepa * loss + sum(weight * found for weight, found in terms.values())
        mean_D = wanted_BUD.mean(dim=(0, 1))
        stats_ = {"loss": loss, "mean": F.smooth_l1_loss(mean_D.expand_as(wanted_BUD), wanted_BUD)}
        return objective, {**stats_, **{name: found for name, (_, found) in terms.items()}}

    @torch.no_grad()
    def standardised(self, wanted_BUD: Tensor, scaled_BRT: Tensor, k: int, target_BU: Tensor) -> Tensor:
        """Targets as the experiment has them."""
        how = self.experiment.targets
        if how == "token":
            return wanted_BUD
        n = scaled_BRT.shape[-1] // k
        content_BRND = self.target.patch_embed.content(scaled_BRT, k)
        x_BFD = self.target.embed(content_BRND, self.target.code(content_BRND))
        layers = []
        for block in self.target.blocks:
            x_BFD = block(x_BFD)
            layers.append(F.layer_norm(x_BFD, x_BFD.shape[-1:]))
        if how == "layers":
            return gather_tokens(torch.stack(layers).mean(dim=0), target_BU)
        tokens_BFD = self.target.norm(x_BFD)
        if how == "roi":
            tokens_BRND = tokens_BFD.unflatten(1, (-1, n))
            tokens_BFD = (tokens_BRND - tokens_BRND.mean(dim=(0, 2), keepdim=True)).flatten(1, 2)
        spread_D = tokens_BFD.std(dim=(0, 1)).clamp_min(1e-4)
        return gather_tokens((tokens_BFD - tokens_BFD.mean(dim=(0, 1))) / spread_D, target_BU)

    @staticmethod
    def same_person(context_BCD: Tensor) -> Tensor:
        """Cross entropy of finding the other half of a subject's context tokens in the batch (InfoNCE)."""
        halves = [
            F.normalize(part.mean(dim=1), dim=-1) for part in (context_BCD[:, ::2], context_BCD[:, 1::2])
        ]
        logits_BB = halves[0] @ halves[1].T / 0.1
        return F.cross_entropy(logits_BB, torch.arange(len(logits_BB)))


# ------------------------------------------------------------------------------------------- subjects


@dataclass(frozen=True)
class Subjects:
    """Series with their repetition times, and what is planted."""

    series: list[np.ndarray]
    tr_s: list[float]
    diagnosis: np.ndarray
    cognition: np.ndarray

    def plan(self, number: int, config: FunctionConfig, **random: Any) -> augment.SeriesPlan:
        """What is read of a series."""
        return augment.plan_series(self.tr_s[number], self.series[number].shape[1], config, **random)

    def read(
        self, numbers: Sequence[int], plans: Sequence[augment.SeriesPlan], config: FunctionConfig
    ) -> Tensor:
        """Series of one bucket, stacked."""
        cut = [augment.apply_plan(self.series[n], p, config) for n, p in zip(numbers, plans, strict=True)]
        return torch.from_numpy(np.stack(cut))


def draw(stream: str, seed: int, subjects: Sequence[timeseries.SeriesSubject]) -> Subjects:
    """Draw subjects as the demo does."""
    return Subjects(
        [timeseries.draw_series(stream, seed, subject) for subject in subjects],
        [subject.scanner.tr_s for subject in subjects],
        np.array([float(subject.patient) for subject in subjects]),
        np.array([subject.score for subject in subjects]),
    )


@functools.cache
def drawn(people: int, folder: Path) -> tuple[Subjects, Subjects, RoiMetadata]:
    """Subjects to train on and to probe, kept in `folder`, and ROI metadata of the former."""
    cohorts = []
    for name, stream, seed, subjects in (
        (
            f"pretraining-{people}",
            timeseries.PRETRAINING_STREAM,
            PRETRAINING_SEED,
            timeseries.pretraining_subjects(people),
        ),
        (
            "patients",
            timeseries.PATIENTS_STREAM,
            PROBED_SEED,
            timeseries.patient_subjects(PROBED_SEED, PROBED),
        ),
    ):
        file = folder / f"{name}.npz"
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            made = draw(stream, seed, subjects)
            np.savez(
                file,
                tr_s=made.tr_s,
                diagnosis=made.diagnosis,
                cognition=made.cognition,
                **{f"series-{i}": series for i, series in enumerate(made.series)},
            )
        with np.load(file) as kept:
            series = [kept[f"series-{i}"] for i in range(len(subjects))]
            cohorts.append(Subjects(series, kept["tr_s"].tolist(), kept["diagnosis"], kept["cognition"]))
    series = cohorts[0].series
    n_rois = len(series[0])
    mean, _ = gradients.mean_connectivity(iter(series), n_rois)
    quartiles = np.mean(
        [np.percentile(run - run.mean(1, keepdims=True), (25, 75), axis=1) for run in series[:60]], axis=0
    )
    rois = RoiMetadata(
        "planted", tuple(f"roi-{i}" for i in range(n_rois)), np.full(n_rois, -1, np.int8),
        np.zeros((n_rois, 0), np.float32), np.zeros((2, 0)),
        gradients.diffusion_map(gradients.affinity(mean), 30)[0].astype(np.float32),
        np.zeros(n_rois, np.float32), (quartiles[1] - quartiles[0]).astype(np.float32),
    )  # fmt: skip
    return cohorts[0], cohorts[1], rois


# ------------------------------------------------------------------------------------------- training and probes


def train(experiment: Experiment, people: int, folder: Path, seed: int) -> tuple[Tried, dict[str, float]]:
    """Train; the model, and means of what it reported in its last 50 steps."""
    subjects, _, rois = drawn(experiment.people or people, folder)
    changes = {"model.harmonics": "none", "train.steps": 200, **experiment.changes}
    steps = cast(int, changes["train.steps"])
    config = load_preset("function", "tiny").override(changes | {"train.steps": max(steps, 10)})
    t, model_config = config.train, cast(FunctionConfig, config.model)
    torch.manual_seed(seed)
    model = Tried(model_config, rois, experiment)
    some = range(0, len(subjects.series), max(len(subjects.series) // 64, 1))
    model.fit_connectivity(
        (subjects.read([n], [plan], model_config)[0], plan.patch_frames)
        for n in some
        for plan in [subjects.plan(n, model_config)]
    )
    start = {name: p.clone() for name, p in model.target.named_parameters()}
    optimizer = optim.adamw(optim.parameter_groups(model.named_parameters()), betas=t.betas)
    reported: list[dict[str, float]] = []
    for step, groups in zip(range(steps), batches(subjects, model_config, t.batch_size, seed), strict=False):
        lr = schedules.warmup_cosine(step, steps=steps, warmup=t.warmup_steps, peak=t.lr, end=t.min_lr)
        end = t.weight_decay if t.weight_decay_end is None else t.weight_decay_end
        decay = schedules.cosine(step, steps=steps, start=t.weight_decay, end=end)
        optim.set_schedule(optimizer, lr=lr, weight_decay=decay)
        size = sum(len(numbers) for numbers, _ in groups)
        for numbers, plans in groups:
            n = plans[0].n_patches
            masks = masking.jepa_masks(len(rois), n, model_config, seed, step, numbers)
            objective, found = model(
                subjects.read(numbers, plans, model_config), plans[0].patch_frames,
                torch.from_numpy(masks.context), torch.from_numpy(masks.target),
            )  # fmt: skip
            (objective * len(numbers) / size).backward()
        reported.append({name: float(value) for name, value in found.items()})
        nn.utils.clip_grad_norm_(model.parameters(), t.clip or math.inf)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        assert t.ema is not None
        model.update_target(schedules.linear(step, steps=steps, start=t.ema[0], end=t.ema[1]))
    last = reported[-50:]
    summary = {name: float(np.mean([one[name] for one in last])) for name in (last[0] if last else {})}
    moved = sum(float((p - start[name]).square().sum()) for name, p in model.target.named_parameters())
    summary["moved"] = (moved / sum(float(p.square().sum()) for p in start.values())) ** 0.5
    return model, summary


def batches(
    subjects: Subjects, config: FunctionConfig, size: int, seed: int
) -> Iterator[list[tuple[list[int], list[augment.SeriesPlan]]]]:
    """Batches without end, each of groups of one bucket."""
    everyone = range(len(subjects.series))
    for epoch in range(10**6):
        plans = [subjects.plan(n, config, seed=seed, epoch=epoch, sample=n) for n in everyone]
        for batch in loader.epoch_batches([p.bucket for p in plans], batch_size=size, seed=seed, epoch=epoch):
            yield [(group, [plans[n] for n in group]) for group in batch]


@torch.no_grad()
def features(model: Tried, subjects: Subjects) -> dict[str, np.ndarray]:
    """What probes read of each subject: (n, D) each."""
    plans = [subjects.plan(n, model.config) for n in range(len(subjects.series))]
    by_bucket: dict[tuple[int, int], list[int]] = {}
    for number, plan in enumerate(plans):
        by_bucket.setdefault(plan.bucket, []).append(number)
    components_RM = readouts.components_of(model)
    read: dict[str, dict[int, np.ndarray]] = {"mean": {}, "regions": {}, "covariance": {}}
    for (k, n), numbers in by_bucket.items():
        for place in range(0, len(numbers), 8):
            group = numbers[place : place + 8]
            series = subjects.read(group, [plans[g] for g in group], model.config)
            tokens_BRND = model.encode(series, k).unflatten(1, (-1, n))
            found = {
                "mean": readouts.mean(tokens_BRND),
                "regions": readouts.regions(tokens_BRND),
                "covariance": readouts.covariance(tokens_BRND, components_RM),
            }
            for name, rows in found.items():
                read[name] |= zip(group, rows.numpy(), strict=True)
    return {name: np.stack([rows[n] for n in sorted(rows)]) for name, rows in read.items()}


def connectivity(subjects: Subjects) -> np.ndarray:
    """Fisher-z connectivity of each subject."""
    upper = np.triu_indices(len(subjects.series[0]), k=1)
    return np.stack([gradients.connectivity(run)[upper].astype(np.float32) for run in subjects.series])


def scores(x: np.ndarray, subjects: Subjects) -> tuple[float, float]:
    """Area under the curve of the diagnosis, and r of the cognition, in subjects who were not fitted."""
    targets = np.stack([subjects.diagnosis, subjects.cognition], axis=1)
    predicted = np.zeros(targets.shape)
    for repeat in range(2):
        for fit, test in KFold(5, shuffle=True, random_state=repeat).split(x):
            ridge = RidgeCV(np.logspace(0, 6, 13), alpha_per_target=True)
            model = make_pipeline(StandardScaler(), ridge).fit(x[fit], targets[fit])
            predicted[test] += model.predict(x[test])
    patient = subjects.diagnosis == 1
    auc = stats.mannwhitneyu(predicted[patient, 0], predicted[~patient, 0]).statistic
    return auc / patient.sum() / (~patient).sum(), float(np.corrcoef(predicted[:, 1], targets[:, 1])[0, 1])


def row(people: int, folder: Path, task: tuple[str, int]) -> str:
    """Run an experiment with one seed: a row of the table."""
    name, seed = task
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning)
    began = time.monotonic()
    model, found = train(EXPERIMENTS[name], people, folder, seed)
    read = features(model, drawn(people, folder)[1])
    cells = [f"{auc:.3f}, {r:.3f}" for auc, r in (scores(x, drawn(people, folder)[1]) for x in read.values())]
    loss = f"{found['loss'] / found['mean']:.2f}" if "loss" in found else ""
    line = f"| {name} | {seed} | {loss} | {found['moved']:.2f} | {' | '.join(cells)} |"
    print(f"{line} {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return line


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="experiments, all if none is named")
    parser.add_argument("--list", action="store_true", help="say what there is")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="at a time, one thread each")
    parser.add_argument("--people", type=int, default=300, help="to train on")
    parser.add_argument("--data", type=Path, default=Path("function-stage-data"), help="keeps the subjects")
    args = parser.parse_args()
    unknown = set(args.names) - EXPERIMENTS.keys()
    if unknown:
        parser.error(f"no experiment {sorted(unknown)[0]!r}: see --list")
    if args.list:
        for name, experiment in EXPERIMENTS.items():
            print(f"{name}: {experiment.why}")
        return
    _, probed, _ = drawn(args.people, args.data)
    tasks = [(name, seed) for name in args.names or EXPERIMENTS for seed in range(args.seeds)]
    print(f"{args.people} subjects to train on, {PROBED} to read; SYNTHETIC DATA\n")
    print(
        "| experiment | seed | loss / mean predictor's | target moved | mean: AUC, r | regions | covariance |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    auc, r = scores(connectivity(probed), probed)
    print(f"| connectivity, all pairs, linear | | | | {auc:.3f}, {r:.3f} | | |", flush=True)
    with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
        for line in pool.imap(functools.partial(row, args.people, args.data), tasks):
            print(line, flush=True)


if __name__ == "__main__":
    main()
