"""Train one stage: masked autoencoding of T1 volumes, JEPA on parcel series, or the fusion of both.

The run lives in a folder named after a hash of everything that decides its result, so the same command goes on where
an earlier one stopped, and a changed input starts afresh. SIGTERM, SIGUSR1 and ``--max-minutes`` save and end with exit
code 75: start the same command again. A finished run only writes its outputs again.

Examples
--------
::

    python -m bhx_model.train --stage function --preset tiny --set '{"train.steps": 200}' --seed 0 \
        --shards results/pretraining/shards/index.json --split results/experiments/demo/pretrain.json \
        --rois results/experiments/demo/rois.npz --run-root results/runs --out results/experiments/demo/function
    torchrun --standalone --nproc-per-node=8 -m bhx_model.train --stage function --preset base ...
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import logging
import math
import os
import shutil
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bhx_model import contract
from bhx_model.atomic_write import atomic_write, write_json
from bhx_model.command_line import run_command
from bhx_model.config import PRESETS, STAGES, StageConfig, json_object, load_preset, whole_number
from bhx_model.data import loader
from bhx_model.data.batch import Batch
from bhx_model.errors import DataError
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.training import checkpoint, distributed, optim, schedules, stages
from bhx_model.training.distributed import Processes
from bhx_model.training.runlog import Metrics, Progress, duration

logger = logging.getLogger(__name__)

#: Exit code of a run that was stopped and can go on (EX_TEMPFAIL).
STOPPED = 75
#: Standard deviation of a JEPA's targets over tokens, of which 1 is the most, at which a run stops, or warns: with a
#: target that follows too fast, targets and loss shrink together and nothing is learned. A new model has 0.8, or 0.5 with
#: preset `reference`; collapsed ones hover between 0.02 and 0.07.
COLLAPSED, SHRUNK = 0.1, 0.25
COLLAPSE_ADVICE = "check the normaliser, raise train.ema or lower train.lr"
#: Samples of a batch of the holdout.
HOLDOUT_BATCH = 16
#: What a finished run leaves, weights last: whoever sees them sees the rest.
OUTPUTS = ("metrics.jsonl", "run.json", "model.safetensors")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when trained, 1 on an error, 75 when stopped and ready to be resumed."""
    arguments = _parse(argv)

    def command() -> int:
        config = load_preset(arguments.stage, arguments.preset).override(arguments.set)
        deterministic, left_alone = _deterministic(config.train.deterministic), _torchrun_watch()
        with deterministic, distributed.start() as processes, _stop_signals() as stop:
            limit = math.inf if arguments.max_minutes is None else 60 * arguments.max_minutes
            return train(
                config,
                stages.Sources(
                    shards=arguments.shards,
                    split=arguments.split,
                    rois=arguments.rois,
                    tokens=arguments.tokens,
                    structure=arguments.structure,
                    function=arguments.function,
                ),
                seed=arguments.seed,
                run_root=arguments.run_root,
                out=arguments.out,
                processes=processes,
                workers=arguments.workers,
                tensorboard=arguments.tensorboard,
                should_stop=lambda: stop() or left_alone() or time.monotonic() - STARTED > limit,
            )

    return run_command(command)


#: Limits count from here, when PyTorch is imported.
STARTED = time.monotonic()


def train(
    config: StageConfig,
    sources: stages.Sources,
    *,
    seed: int,
    run_root: Path,
    out: Path,
    processes: Processes,
    workers: int = 2,
    tensorboard: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
) -> int:
    """Train a stage from its last checkpoint, if any, to the end, and write its outputs.

    Parameters
    ----------
    config : StageConfig
        Model and training, resolved.
    sources : Sources
        Files that are read.
    seed : int
        Of weights, order, masks and augmentation.
    run_root : Path
        Folder of the run folders.
    out : Path
        Folder for ``model.safetensors``, ``run.json`` and ``metrics.jsonl``.
    processes : Processes
        This process and the others of the run.
    workers : int
        Reading threads; any number gives the same result.
    tensorboard : bool
        Also write events for TensorBoard.
    should_stop : Callable
        Asked after every step; when any process says yes, the run saves and stops.

    Returns
    -------
    int
        0, or 75 if it was stopped.

    Raises
    ------
    ValueError
        On unusable inputs, on a loss that is not finite, or when a JEPA collapses.
    """
    stage = stages.open_stage(config, sources, seed, processes.device)
    run = run_root / f"{config.stage}-{run_hash(config, seed, stage.hashes)}"
    run.mkdir(parents=True, exist_ok=True)
    with checkpoint.held(run, should_stop) if processes.first else nullcontext(True) as ours:
        if processes.any(not ours):  # all wait here for the first to hold the folder
            return STOPPED
        if not (run / "final" / OUTPUTS[-1]).exists():
            if not _advance(stage, run, processes, workers, tensorboard, should_stop):
                return STOPPED
        elif processes.first:
            logger.info(f"{run} is finished: writing its outputs to {out}")
        if processes.first:
            deliver(run / "final", out)
            logger.info(f"{config.stage}: weights in {out}")
        processes.wait()
    return 0


def _advance(
    stage: stages.Stage,
    run: Path,
    processes: Processes,
    workers: int,
    tensorboard: bool,
    should_stop: Callable[[], bool],
) -> bool:
    """Train from the last checkpoint in `run` to the end; False if it was stopped before."""
    config, seed, t = stage.config, stage.seed, stage.config.train

    # --- inputs: whole, and in an order that only seed and step decide
    if processes.first:
        made_of = {"config": config.to_dict(), "seed": seed, "inputs": stage.hashes}
        write_json(run / "made_of.json", made_of)
    stage.verify(run / f"verified-{processes.rank}.json", (processes.rank, processes.world))
    per_epoch = math.ceil(stage.n_train / t.batch_size)

    # --- model, optimizer, and where the last checkpoint left them
    torch.manual_seed(seed)
    model = stage.build().to(processes.device)
    optimizer = optim.adamw(optim.parameter_groups(model.named_parameters()), betas=t.betas)
    start, state = max(checkpoint.steps(run), default=0), _fresh_state()
    if processes.any(start * processes.world != processes.sum([start])[0]):
        msg = f"the processes see different checkpoints in {run}: put --run-root where all nodes see the same files"
        raise DataError(msg)
    if start:
        state = checkpoint.load(run, start, model, optimizer)
        if processes.first:
            logger.info(f"going on from {checkpoint.folder(run, start)}")
    objective: nn.Module = model
    if t.compile:
        objective = torch.compile(objective)  # type: ignore[assignment]
    if processes.world > 1:
        with (
            warnings.catch_warnings()
        ):  # the oldest PyTorch that we take knows the switch by its old name only
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            objective = DistributedDataParallel(objective, broadcast_buffers=False)

    metrics = None
    if processes.first:
        metrics = Metrics(run / "metrics.jsonl", start, run / "tensorboard" if tensorboard else None)
        logger.info(
            f"{config.stage}: {stage.n_train} samples, {stage.n_people} people, {per_epoch} steps an epoch, {run}"
        )
    progress = Progress(config.stage, start, t.steps)
    warned = False
    began = time.monotonic()

    def save(step: int) -> None:
        if processes.first:
            kept = {**state, "seconds": state["seconds"] + time.monotonic() - began}
            checkpoint.save(run, step, model, optimizer, kept, keep_every=t.keep_every)
        processes.wait()

    def look(step: int) -> None:
        state["holdout"], bad = holdout(stage, model, processes)
        if bad:
            raise DataError(_not_finite(step - 1, "holdout's loss", bad, run))
        if metrics is not None:
            metrics.write(step, {f"holdout_{k}": value for k, value in state["holdout"].items()})

    # a run that is told to stop has no time to look at the holdout: the next one does
    owed = start and start % t.save_every == 0 and metrics is not None and "holdout_loss" not in metrics.last
    if stage.n_holdout and processes.any(bool(owed)):
        look(start)

    # --- the loop: what happens in a step is a function of its number alone
    tasks = (functools.partial(share, stage, step, processes) for step in range(start, t.steps))
    reader = loader.in_order(tasks, workers=workers, ahead=max(2, workers))
    objective.train()
    for step, (parts, weights) in zip(range(start, t.steps), reader, strict=True):
        torch.manual_seed(_mix(seed, step, processes.rank))  # for what is random inside the model
        lr = schedules.warmup_cosine(step, steps=t.steps, warmup=t.warmup_steps, peak=t.lr, end=t.min_lr)
        decay_end = t.weight_decay if t.weight_decay_end is None else t.weight_decay_end
        decay = schedules.cosine(step, steps=t.steps, start=t.weight_decay, end=decay_end)
        optim.set_schedule(optimizer, lr=lr, weight_decay=decay)

        done = step + 1
        report = done % t.log_every == 0 or done == t.steps
        losses, stats = backward(objective, stage, parts, weights, processes, diagnose=report)
        norm = nn.utils.clip_grad_norm_(model.parameters(), math.inf if t.clip is None else t.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if t.ema is not None:
            momentum = schedules.linear(step, steps=t.steps, start=t.ema[0], end=t.ema[1])
            cast(FunctionJEPA, model).update_target(momentum)

        # --- is it sound? Asked when all of the step's work is queued, so that a GPU is waited for once a step
        told = losses.tolist()
        bad = [
            key
            for batch, one in zip(parts, told, strict=True)
            if not math.isfinite(one)
            for key in batch.keys
        ]
        mean = sum(one * weight for one, weight in zip(told, weights, strict=True) if weight)
        mean, n_bad, stopping = processes.sum([mean, float(len(bad)), float(should_stop())])
        if n_bad or not math.isfinite(float(norm)):
            named = processes.gather(bad) or processes.gather([key for batch in parts for key in batch.keys])
            raise DataError(_not_finite(step, "loss" if n_bad else "gradient", named, run))

        # --- report, look at the holdout, save, stop
        state["samples_seen"] += sum(map(len, stage.epoch(step // per_epoch, t.batch_size)[step % per_epoch]))
        state["sum"], state["count"] = state["sum"] + mean, state["count"] + 1
        if report:
            loss_now = state["sum"] / state["count"]
            state |= {"sum": 0.0, "count": 0, "last": loss_now}
            state["first"] = loss_now if state["first"] is None else state["first"]
            numbers = {name: float(value) for name, value in stats.items()}
            if metrics is not None:
                line = {
                    "loss": loss_now,
                    **numbers,
                    "lr": lr,
                    "weight_decay": decay,
                    "grad_norm": float(norm),
                }
                metrics.write(done, {**line, "epoch": done / per_epoch})
                logger.info(progress.line(done, t.batch_size, {"loss": loss_now, "lr": lr}))
            if processes.any(collapsed(numbers)):
                raise DataError(_collapse(step, numbers, run))
            if metrics is not None and not warned and numbers.get("target_std", 1.0) < SHRUNK:
                warned = True
                logger.info(
                    f"warning: the targets shrink ({_targets(numbers)}), on the way to collapse: {COLLAPSE_ADVICE}"
                )
        if done % t.save_every == 0 or done == t.steps or stopping:
            if stage.n_holdout and (not stopping or done == t.steps):
                look(done)
            save(done)
        if stopping and done < t.steps:
            reader.close()
            if metrics is not None:
                metrics.close()
                logger.info(f"stopped after step {done} of {t.steps}: the same command goes on from there")
            return False

    if metrics is not None:
        metrics.close()
        seconds = state["seconds"] + time.monotonic() - began
        finish(run, model, describe(config, stage, seed, {**state, "seconds": seconds}, model, processes))
        logger.info(f"{config.stage}: trained in {duration(seconds)}")
    return True


def share(stage: stages.Stage, step: int, processes: Processes) -> tuple[list[Batch], list[float]]:
    """Read this process' parts of a step, and their weights in the step's loss.

    Over all processes the parts are the batch, and the weights add up to 1.
    """
    t = stage.config.train
    epoch, place = divmod(step, math.ceil(stage.n_train / t.batch_size))
    batch = stage.epoch(epoch, t.batch_size)[place]
    size = sum(map(len, batch))
    mine = loader.pieces(batch, size=_part(stage, processes), rank=processes.rank, world=processes.world)
    # a process without a share takes part in the exchange of gradients with a weight of 0
    weights = [len(numbers) / size for numbers in mine] or [0.0]
    return [stage.load(numbers, step, epoch).pin() for numbers in mine or [batch[0][:1]]], weights


def _part(stage: stages.Stage, processes: Processes) -> int:
    """Samples of a part: cut so that all processes do the same amount of work."""
    t = stage.config.train
    return math.ceil(t.batch_size / (processes.world * t.accumulate))


def _autocast(stage: stages.Stage, processes: Processes) -> torch.autocast:
    return torch.autocast(processes.device.type, torch.bfloat16, enabled=stage.config.train.amp == "bf16")


def backward(
    objective: nn.Module,
    stage: stages.Stage,
    parts: Sequence[Batch],
    weights: Sequence[float],
    processes: Processes,
    *,
    diagnose: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Leave the gradient of the step's loss, the mean over its samples, in the parameters.

    Nothing here waits for a GPU.

    Returns
    -------
    losses : Tensor, (parts,)
    stats : dict
        What the model tells of the last part.
    """
    losses: list[Tensor] = []
    stats: dict[str, Tensor] = {}
    for number, (batch, weight) in enumerate(zip(parts, weights, strict=True)):
        last = number == len(parts) - 1
        # gradients are exchanged once per step, with the last part
        apart = isinstance(objective, DistributedDataParallel) and not last
        args, kwargs = stage.inputs(batch.to(processes.device), diagnose=diagnose and last)
        with objective.no_sync() if apart else nullcontext():  # type: ignore[operator]
            with _autocast(stage, processes):
                loss, stats = objective(*args, **kwargs)
            # the exchange averages over processes, the weights already add up to 1 over all of them
            (loss * (weight * processes.world)).backward()
        losses.append(loss.detach())
    return torch.stack(losses), stats


@torch.no_grad()
def holdout(
    stage: stages.Stage, model: nn.Module, processes: Processes
) -> tuple[dict[str, float], list[str]]:
    """Loss on the people kept out, and that of predicting the mean of a batch.

    Masks and batches are the same whenever it is asked for, and however many processes share them.

    Returns
    -------
    losses : dict
        ``loss`` and ``loss_of_mean``.
    bad : list of str
        Samples in batches whose losses are not finite.
    """
    model.eval()
    mine = stage.holdout(HOLDOUT_BATCH)[processes.rank :: processes.world]
    loss_sum = trivial_sum = 0.0
    bad: list[str] = []
    tasks = (lambda numbers=numbers: stage.load(numbers, 0, None).pin() for numbers in mine)
    for batch in loader.in_order(tasks, workers=1, ahead=1):
        args, kwargs = stage.inputs(batch.to(processes.device))
        with _autocast(stage, processes):
            loss, stats = model(*args, **kwargs)
        one, trivial = float(loss), float(stats["loss_of_mean"])
        loss_sum += one * len(batch.keys)
        trivial_sum += trivial * len(batch.keys)
        bad += batch.keys if not math.isfinite(one + trivial) else []
    model.train()
    loss_sum, trivial_sum = processes.sum([loss_sum, trivial_sum])
    losses = {"loss": loss_sum / stage.n_holdout, "loss_of_mean": trivial_sum / stage.n_holdout}
    return losses, processes.gather(bad)


def collapsed(stats: Mapping[str, float]) -> bool:
    """Whether a JEPA's targets have become (nearly) the same token everywhere, which makes predicting them trivial.

    Targets are standardised over channels, so their standard deviation over tokens would be 1 if nothing were shared.
    """
    return stats.get("target_std", 1.0) < COLLAPSED or stats.get("target_rank", math.inf) < 1.5


def describe(
    config: StageConfig,
    stage: stages.Stage,
    seed: int,
    state: Mapping[str, Any],
    model: nn.Module,
    processes: Processes,
) -> dict[str, Any]:
    """Collect what ``run.json`` tells of a finished run."""
    return {
        "stage": config.stage,
        "config": config.to_dict(),
        "model_metadata": stage.metadata(),
        "seed": seed,
        "run": run_hash(config, seed, stage.hashes),
        "inputs": stage.hashes,
        "cohorts": [index.cohort for index in stage.indices],
        "synthetic": stage.synthetic,
        "counts": {
            "train_people": stage.n_people,
            "train_samples": stage.n_train,
            "holdout_samples": stage.n_holdout,
            "samples_seen": state["samples_seen"],
            "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        },
        "loss": {
            "first": state["first"],
            "last": state["last"],
            "holdout": state["holdout"] and state["holdout"]["loss"],
            "trivial": state["holdout"] and state["holdout"]["loss_of_mean"],
        },
        "seconds": round(state["seconds"], 1),
        "machine": {
            "device": processes.device.type,
            "processes": processes.world,
            "torch": torch.__version__,
        },
    }


def finish(run: Path, model: nn.Module, card: dict[str, Any]) -> None:
    """Put the outputs together in the run folder; the weights last, for they say that it is finished."""
    final = run / "final"
    with atomic_write(final / "metrics.jsonl") as part:
        shutil.copyfile(run / "metrics.jsonl", part)
    write_json(final / "run.json", card)
    checkpoint.save_tensors(model.state_dict(), final / "model.safetensors")


def deliver(final: Path, out: Path) -> None:
    """Copy the outputs of a finished run, each in one step, the weights last."""
    for name in OUTPUTS:
        with atomic_write(out / name) as part:
            shutil.copyfile(final / name, part)


def run_hash(config: StageConfig, seed: int, hashes: dict[str, Any]) -> str:
    """Name a run by all that decides its result: configuration, seed, and the bytes of what it reads."""
    value = {"config": config.to_dict(), "seed": seed, "inputs": hashes}
    return hashlib.sha256(contract.canonical_json(value)).hexdigest()[:16]


def _fresh_state() -> dict[str, Any]:
    return {
        "samples_seen": 0, "seconds": 0.0, "sum": 0.0, "count": 0, "first": None, "last": None, "holdout": None,
    }  # fmt: skip


def _not_finite(step: int, what: str, keys: Sequence[str], run: Path) -> str:
    shown = ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
    return (
        f"the {what} of step {step + 1} is not finite, samples: {shown}; the weights of the last checkpoint in {run} are "
        "intact: look at these samples, lower train.lr or set train.clip"
    )


def _collapse(step: int, stats: Mapping[str, float], run: Path) -> str:
    return f"the targets have collapsed at step {step + 1} ({_targets(stats)}): {COLLAPSE_ADVICE}; {run}"


def _targets(stats: Mapping[str, float]) -> str:
    return (
        f"standard deviation over tokens {stats['target_std']:.3g}, effective rank {stats['target_rank']:.3g}"
    )


def _mix(*numbers: int) -> int:
    """One seed from several."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Note SIGTERM and SIGUSR1, which schedulers send before a limit, instead of dying from them."""
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield lambda: bool(noted)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _torchrun_watch() -> Callable[[], bool]:
    """Whether the torchrun that started this process is gone: one that was killed leaves its processes behind."""
    started_by, under_torchrun = os.getppid(), "TORCHELASTIC_RUN_ID" in os.environ
    return lambda: under_torchrun and os.getppid() != started_by


@contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    """Only deterministic kernels, if `wanted`."""
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bhx_model.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--stage", choices=STAGES, required=True)
    add("--preset", choices=PRESETS, required=True)
    add(
        "--set",
        type=json_object,
        default={},
        metavar="JSON",
        help="changes to the preset, e.g. '{\"train.steps\": 10}'",
    )
    add("--seed", type=whole_number, default=0, help="of weights, order, masks and augmentation")
    add("--shards", type=Path, nargs="+", required=True, metavar="INDEX", help="index.json of every cohort")
    add("--split", type=Path, required=True, help="people to train on and to hold out")
    add("--rois", type=Path, required=True, help="rois.npz of the experiment")
    add(
        "--tokens",
        type=Path,
        nargs="+",
        default=[],
        metavar="INDEX",
        help="cached tokens of every cohort (fusion)",
    )
    add("--structure", type=Path, help="trained structure stage (fusion with model.inputs online)")
    add("--function", type=Path, help="trained function stage (fusion with model.inputs online)")
    add("--run-root", type=Path, required=True, help="folder of run folders with checkpoints")
    add("--out", type=Path, required=True, help="folder of the finished weights")
    add("--max-minutes", type=float, help="save and end with exit code 75 after this time")
    add("--workers", type=whole_number, default=2, help="reading threads; any number gives the same result")
    add("--tensorboard", action="store_true", help="also write events for TensorBoard into the run folder")
    return parser.parse_args(argv)
