"""The training loop: from the last checkpoint to the end; each step is a function of its number alone."""

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
from typing import NamedTuple, cast

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
from bhx_model.strict_fields import from_dict
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
    """Content of a checkpoint besides weights and optimizer."""

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


class _Step(NamedTuple):
    """A step that was taken, and what of its schedule is reported."""

    outcome: StepOutcome
    lr: float
    decay: float


class _Training:
    """A running training: model and optimizer as the last checkpoint left them, and what is reported of its steps."""

    def __init__(
        self,
        stage: Stage,
        run: Path,
        processes: Processes,
        workers: int,
        trackers: Sequence[str],
        init_from: WarmStart | None,
    ) -> None:
        t = stage.config.train
        self.stage, self.run, self.processes, self.workers, self.settings = stage, run, processes, workers, t
        torch.manual_seed(stage.seed)
        self.model = stage.build().to(processes.device)
        self.optimizer = optim.adamw(optim.parameter_groups(self.model.named_parameters()), betas=t.betas)
        if init_from is not None and not checkpoint.steps(run):
            init_from.put_into(self.model, stage.config.model, run if processes.first else None)
        self.start, self.state = _resume(run, self.model, self.optimizer, processes)
        self.objective = _objective(self.model, t, processes)
        self.per_epoch = math.ceil(stage.n_train / t.batch_size)
        self.reporter = Reporter(
            stage.config.stage, run, self.start, t.steps, t.batch_size, trackers, silent=not processes.first
        )
        if processes.first:
            about = f"{stage.n_train} samples, {stage.n_subjects} subjects, {self.per_epoch} steps an epoch"
            logger.info("%s: %s, %s", stage.config.stage, about, run)
            target.warn_of_still_target(stage)
        self.alarm = alarms.CollapseAlarm(run, processes)
        self.saver = Saver(run, processes, t.keep_every)
        self.began = time.monotonic()

    def step(
        self, number: int, parts: feed.Parts, weights: list[float], should_stop: Callable[[], bool]
    ) -> _Step:
        """Take a step, a function of its number alone, and ask for its outcome; nothing here waits for a GPU."""
        t, reports = self.settings, self._reports(number + 1)
        torch.manual_seed(
            _mix(self.stage.seed, number, self.processes.rank)
        )  # of what is random in the model
        lr, decay = _set_schedule(self.optimizer, t, number)
        losses, stats = backward(self.objective, self.stage, parts, weights, self.processes, diagnose=reports)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), math.inf if t.clip is None else t.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if t.ema is not None:
            momentum = schedules.linear(number, steps=t.steps, start=t.ema[0], end=t.ema[1])
            cast(FunctionJEPA, self.model).update_target(momentum)
        outcome = StepOutcome(
            number, losses, norm, stats if reports else {}, parts=parts.taken, weights=weights, stop=should_stop(),
            unsaved=self.saver.failed, processes=self.processes,
        )  # fmt: skip
        return _Step(outcome, lr, decay)

    def conclude(self, step: _Step) -> bool:
        """Stop the run if the step was not sound, count and report it; whether any process was asked to stop."""
        outcome, state = step.outcome, self.state
        outcome.read()
        if outcome.n_bad or not math.isfinite(outcome.norm):
            named = self.processes.gather(outcome.bad) or self.processes.gather(outcome.keys)
            what = "loss" if outcome.n_bad else "gradient"
            raise alarms.not_finite_error(outcome.step, what, named, self.run)
        if outcome.unsaved:
            self.saver.finish()
        epoch, place = divmod(outcome.step, self.per_epoch)
        state.samples_seen += sum(map(len, self.stage.epoch(epoch, self.settings.batch_size)[place]))
        state.sum, state.count = state.sum + outcome.loss, state.count + 1
        done = outcome.step + 1
        if self._reports(done):
            schedule = {
                "lr": step.lr,
                "weight_decay": step.decay,
                "grad_norm": outcome.norm,
                "epoch": done / self.per_epoch,
            }
            values = {"loss": state.report(), **outcome.stats, **schedule}
            self.processes.first_only(functools.partial(self.reporter.step, done, values))
            self.alarm.check(outcome.step, outcome.stats)
        return outcome.stop

    def _reports(self, done: int) -> bool:
        return done % self.settings.log_every == 0 or done == self.settings.steps

    def evaluate_if_postponed(self) -> None:
        """Evaluate the holdout where the last run had no time to: it was asked to stop."""
        postponed = self.start and self.start % self.settings.save_every == 0 and self.reporter.lacks_holdout
        if self.stage.n_holdout and self.processes.any(bool(postponed)):
            self.evaluate(self.start)

    def evaluate(self, done: int) -> None:
        """Loss on the holdout after so many steps."""
        self.state.holdout, bad = evaluate_holdout(self.stage, self.model, self.processes, self.workers)
        if bad:
            raise alarms.not_finite_error(done - 1, "holdout's loss", bad, self.run)
        self.processes.first_only(functools.partial(self.reporter.holdout, done, self.state.holdout))

    def save(self, done: int, *, ending: bool) -> None:
        """Save a checkpoint; what its metrics say is on the disk before it is."""
        seconds = self.state.seconds + time.monotonic() - self.began
        kept = dataclasses.asdict(dataclasses.replace(self.state, seconds=seconds)) | {"run": self.run.name}
        self.processes.first_only(self.reporter.sync)
        self.saver.save(done, self.model, self.optimizer, kept, ending=ending)

    def stop(self, done: int) -> None:
        """End before the last step."""
        self.saver.finish()
        self.reporter.close()
        if self.processes.first:
            text = "stopped after step %d of %d: the same command resumes from there"
            logger.info(text, done, self.settings.steps)

    def finish(self, step_version: int) -> None:
        """Write the outputs after the last step."""
        self.saver.finish()
        self.reporter.close()
        self.state.seconds += time.monotonic() - self.began
        about_run = run_folder.describe_run(
            self.stage, dataclasses.asdict(self.state), self.model, self.processes, step_version
        )
        self.processes.first_only(lambda: run_folder.write_outputs(self.run, self.model, about_run))
        if self.processes.first:
            logger.info("%s: trained in %s", self.stage.config.stage, duration(self.state.seconds))


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
    t = stage.config.train
    processes.first_only(lambda: _say_what_it_is_made_of(stage, run, step_version))
    stage.verify(run / f"verified-{processes.rank}.json", (processes.rank, processes.world))
    training = _Training(stage, run, processes, workers, trackers, init_from)
    training.evaluate_if_postponed()

    def stops() -> bool:
        return should_stop() or time.monotonic() + training.saver.longest_s > until

    reader = feed.steps(stage, range(training.start, t.steps), processes, workers)
    training.objective.train()
    queued: list[_Step] = []
    for number, (parts, weights) in zip(range(training.start, t.steps), reader, strict=True):
        queued.append(training.step(number, parts, weights, stops))

        # was it sound? A GPU is asked behind all of the step's work, and read when it has the next step's before it
        done = number + 1
        saves = done % t.save_every == 0 or done == t.steps
        ready = queued if saves or not reads_late(processes.device) else queued[:-1]
        stopping = any([training.conclude(one) for one in ready])
        if stopping and len(ready) < len(queued):  # nothing is saved that was not looked at
            training.conclude(queued[-1])
            ready = queued
        queued = queued[len(ready) :]

        if saves or stopping:
            if stage.n_holdout and (not stopping or done == t.steps):
                training.evaluate(done)
            training.save(done, ending=stopping)
        if stopping and done < t.steps:
            training.stop(done)
            reader.close()
            return False
    training.finish(step_version)
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
    about = {name: kept[name] for name in names if name != "holdout"}
    try:
        state = from_dict(State, about, "state.json")
        state.holdout = kept["holdout"] and {str(k): float(v) for k, v in kept["holdout"].items()}
    except (ConfigError, AttributeError, TypeError, ValueError) as error:  # edited by hand
        msg = f"{checkpoint.folder(run, start)} is broken ({error}): remove it to resume from the one before"
        raise DataError(msg) from error
    if (of := kept.get("run", run.name)) != run.name:  # earlier versions did not say it
        msg = f"{checkpoint.folder(run, start)} is of {of}, another training: remove it (init_from starts from weights)"
        raise DataError(msg)
    return start, state


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
