"""The training loop: from the last checkpoint to the end, each step a function of its number alone."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bhx_model.atomic_write import write_json
from bhx_model.config import TrainConfig
from bhx_model.data.batch import Batch
from bhx_model.errors import ConfigError, DataError
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.nets.vit import compile_blocks
from bhx_model.training import alarms, checkpoint, feed, optim, run_folder, schedules, target
from bhx_model.training.distributed import Processes
from bhx_model.training.holdout import evaluate_holdout
from bhx_model.training.runlog import Reporter, duration
from bhx_model.training.saver import Saver
from bhx_model.training.stages import Stage
from bhx_model.training.step_outcome import StepOutcome, reads_late
from bhx_model.training.warm_start import WarmStart

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class State:
    """What a checkpoint holds beside weights and optimizer."""

    samples_seen: int = 0
    seconds: float = 0.0
    """Time of training, s."""
    sum: float = 0.0
    """Of the losses since the last report, and how many there are."""
    count: int = 0
    first: float | None = None
    """Losses of the first and the last report."""
    last: float | None = None
    holdout: dict[str, float] | None = None
    """Losses on the holdout, the last time they were evaluated."""

    def report(self) -> float:
        """Mean of the losses since the last report."""
        self.last = self.sum / self.count
        self.first = self.last if self.first is None else self.first
        self.sum, self.count = 0.0, 0
        return self.last


def train_loop(
    stage: Stage,
    run: Path,
    processes: Processes,
    workers: int,
    trackers: Sequence[str],
    should_stop: Callable[[], bool],
    step_version: int = 0,
    init_from: WarmStart | None = None,
    until: float = math.inf,
) -> bool:
    """Train from the last checkpoint in `run` to the end; False if it was stopped before.

    Without a checkpoint it starts from the weights of `init_from`, or from random ones. It stops early enough to be saved by
    `until`, in seconds of `time.monotonic`.

    Raises
    ------
    DataError
        On unusable inputs, on a loss that is not finite, or when a JEPA collapses.
    """
    config, t = stage.config, stage.config.train

    # --- inputs: whole, and in an order that only seed and step decide
    processes.first_only(lambda: _say_what_it_is_made_of(stage, run, step_version))
    stage.verify(run / f"verified-{processes.rank}.json", (processes.rank, processes.world))
    per_epoch = math.ceil(stage.n_train / t.batch_size)

    # --- model, optimizer, and where the last checkpoint left them
    torch.manual_seed(stage.seed)
    model = stage.build().to(processes.device)
    optimizer = optim.adamw(optim.parameter_groups(model.named_parameters()), betas=t.betas)
    if init_from is not None and not checkpoint.steps(run):
        init_from.put_into(model, run if processes.first else None)
    start, state = _resume(run, model, optimizer, processes)
    objective = _objective(model, t, processes)
    reporter = Reporter(config.stage, run, start, t.steps, t.batch_size, trackers, silent=not processes.first)
    if processes.first:
        about = f"{stage.n_train} samples, {stage.n_subjects} subjects, {per_epoch} steps an epoch"
        logger.info("%s: %s, %s", config.stage, about, run)
        target.warn_of_still_target(stage)
    alarm = alarms.CollapseAlarm(run, processes)
    saver = Saver(run, processes, t.keep_every)
    began = time.monotonic()

    def save(step: int, *, ending: bool) -> None:
        seconds = state.seconds + time.monotonic() - began
        kept = dataclasses.asdict(dataclasses.replace(state, seconds=seconds))
        processes.first_only(reporter.sync)  # what the checkpoint's metrics say is on the disk before it is
        saver.save(step, model, optimizer, kept, ending=ending)

    def evaluate(step: int) -> None:
        state.holdout, bad = evaluate_holdout(stage, model, processes, workers)
        if bad:
            raise alarms.not_finite_error(step - 1, "holdout's loss", bad, run)
        processes.first_only(functools.partial(reporter.holdout, step, state.holdout))

    # a run that is asked to stop has no time to evaluate the holdout: the next one does
    postponed = start and start % t.save_every == 0 and reporter.lacks_holdout
    if stage.n_holdout and processes.any(bool(postponed)):
        evaluate(start)

    def conclude(outcome: StepOutcome, lr: float, decay: float) -> bool:
        """Stop the run if the step was not sound, count and report it; whether any process was asked to stop."""
        outcome.read()
        if outcome.n_bad or not math.isfinite(outcome.norm):
            named = processes.gather(outcome.bad) or processes.gather(outcome.keys)
            raise alarms.not_finite_error(outcome.step, "loss" if outcome.n_bad else "gradient", named, run)
        if outcome.unsaved:
            saver.finish()
        epoch, place = divmod(outcome.step, per_epoch)
        state.samples_seen += sum(map(len, stage.epoch(epoch, t.batch_size)[place]))
        state.sum, state.count = state.sum + outcome.loss, state.count + 1
        done = outcome.step + 1
        if reports(done):
            schedule = {
                "lr": lr,
                "weight_decay": decay,
                "grad_norm": outcome.norm,
                "epoch": done / per_epoch,
            }
            values = {"loss": state.report(), **outcome.stats, **schedule}
            processes.first_only(functools.partial(reporter.step, done, values))
            alarm.check(outcome.step, outcome.stats)
        return outcome.stop

    def reports(done: int) -> bool:
        return done % t.log_every == 0 or done == t.steps

    # --- the loop: what happens in a step is a function of its number alone
    reader = feed.steps(stage, range(start, t.steps), processes, workers)
    objective.train()
    queued: list[tuple[StepOutcome, float, float]] = []
    for step, (parts, weights) in zip(range(start, t.steps), reader, strict=True):
        torch.manual_seed(_mix(stage.seed, step, processes.rank))  # for what is random inside the model
        lr, decay = _set_schedule(optimizer, t, step)
        done = step + 1
        losses, stats = backward(objective, stage, parts, weights, processes, diagnose=reports(done))
        norm = nn.utils.clip_grad_norm_(model.parameters(), math.inf if t.clip is None else t.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if t.ema is not None:
            momentum = schedules.linear(step, steps=t.steps, start=t.ema[0], end=t.ema[1])
            cast(FunctionJEPA, model).update_target(momentum)

        # --- is it sound? A GPU is asked behind all of the step's work, and read when it has the next step's before it
        stop = should_stop() or time.monotonic() + saver.longest_s > until
        outcome = StepOutcome(
            step, losses, norm, stats if reports(done) else {}, parts=parts.taken, weights=weights, stop=stop,
            unsaved=saver.failed, processes=processes,
        )  # fmt: skip
        queued.append((outcome, lr, decay))
        saves = done % t.save_every == 0 or done == t.steps
        ready = queued if saves or not reads_late(processes.device) else queued[:-1]
        stopping = any([conclude(*one) for one in ready])
        if stopping and queued[-1] not in ready:  # nothing is saved that was not looked at
            conclude(*queued[-1])
            ready = queued
        queued = queued[len(ready) :]

        # --- evaluate the holdout, save, stop
        if saves or stopping:
            if stage.n_holdout and (not stopping or done == t.steps):
                evaluate(done)
            save(done, ending=stopping)
        if stopping and done < t.steps:
            saver.finish()
            reader.close()
            reporter.close()
            if processes.first:
                logger.info("stopped after step %d of %d: the same command resumes from there", done, t.steps)
            return False

    saver.finish()
    reporter.close()
    state.seconds += time.monotonic() - began
    about_run = run_folder.describe_run(stage, dataclasses.asdict(state), model, processes, step_version)
    processes.first_only(lambda: run_folder.write_outputs(run, model, about_run))
    if processes.first:
        logger.info("%s: trained in %s", config.stage, duration(state.seconds))
    return True


def _say_what_it_is_made_of(stage: Stage, run: Path, step_version: int) -> None:
    """Write what the run is made of, and say which runs it cannot go on from."""
    made_of, steps = run_folder.made_of(stage, step_version), stage.config.train.steps
    others = {} if checkpoint.steps(run) else run_folder.of_other_length(run, made_of)
    for other, length in others.items():
        logger.info(
            "%s has the same settings and %d steps: the learning rate follows the number of steps, so that"
            " it cannot go on to %d; training from the start",
            other,
            length,
            steps,
        )
    write_json(run / run_folder.MADE_OF, made_of)


def _resume(
    run: Path, model: nn.Module, optimizer: torch.optim.Optimizer, processes: Processes
) -> tuple[int, State]:
    """Load the last checkpoint, if there is one, and return its step and state."""
    here = sorted(processes.gather([str(step) for step in checkpoint.steps(run)]))
    if any(here.count(step) != processes.world for step in here):
        msg = f"the processes see different checkpoints in {run}: put --run-root where all nodes see the same files"
        raise ConfigError(msg)
    start, kept = checkpoint.load_last(run, model, optimizer, processes)
    if not start:
        return 0, State()
    if processes.first:
        logger.info("resuming from %s", checkpoint.folder(run, start))
    names = [field.name for field in dataclasses.fields(State)]
    lacking = [name for name in names if name not in kept]
    if lacking:
        msg = f"{checkpoint.folder(run, start)} was saved by another version, it lacks {', '.join(lacking)}: remove it"
        raise DataError(msg)
    return start, State(**{name: kept[name] for name in names})


def _objective(model: nn.Module, t: TrainConfig, processes: Processes) -> nn.Module:
    """Model that gives the loss: compiled, and exchanging gradients with the other processes, as configured."""
    objective: nn.Module = model
    if t.compile:
        compile_blocks(model)
    if processes.world > 1:
        with warnings.catch_warnings():
            # the oldest PyTorch that we take knows the switch by its old name only
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            objective = DistributedDataParallel(objective, broadcast_buffers=False)
    return objective


def _set_schedule(optimizer: torch.optim.Optimizer, t: TrainConfig, step: int) -> tuple[float, float]:
    """Set learning rate and weight decay of a step, and return them."""
    lr = schedules.warmup_cosine(step, steps=t.steps, warmup=t.warmup_steps, peak=t.lr, end=t.min_lr)
    decay_end = t.weight_decay if t.weight_decay_end is None else t.weight_decay_end
    decay = schedules.cosine(step, steps=t.steps, start=t.weight_decay, end=decay_end)
    optim.set_schedule(optimizer, lr=lr, weight_decay=decay)
    return lr, decay


def rank_share(stage: Stage, step: int, processes: Processes) -> tuple[list[Batch], list[float]]:
    """Read this process' parts of a step, and their weights in the step's loss.

    Over all processes the parts are the batch, and the weights add up to 1.
    """
    mine = feed.share(stage, step, processes)
    return [stage.load(numbers, step, mine.epoch).pin() for numbers in mine.parts], mine.weights


def backward(
    objective: nn.Module,
    stage: Stage,
    parts: Iterable[Batch],
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
        What the model reports of the last part.
    """
    losses: list[Tensor] = []
    stats: dict[str, Tensor] = {}
    for number, (batch, weight) in enumerate(zip(parts, weights, strict=True)):
        last = number == len(weights) - 1
        # gradients are exchanged once per step, with the last part
        apart = isinstance(objective, DistributedDataParallel) and not last
        args, kwargs = stage.inputs(batch.to(processes.device), diagnose=diagnose and last)
        with objective.no_sync() if apart else nullcontext():  # type: ignore[operator]
            with stage.autocast(processes.device):
                loss, stats = objective(*args, **kwargs)
            # the exchange averages over processes, the weights already add up to 1 over all of them
            (loss * (weight * processes.world)).backward()
        # what is reported is one term; where another is not finite, nor is what is minimised, and that is to be seen
        losses.append(torch.where(loss.isfinite(), stats.pop("loss", loss), loss).detach())
    return torch.stack(losses), stats


def _mix(*numbers: int) -> int:
    """One seed from several."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
