"""Time, rate and memory of a training step on a device: forward, backward, clipping, AdamW and the EMA target."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import gpu_cases as cases
import torch
from gpu_cases import BEFORE, COMPILED, FINETUNING, PUBLISHED, Case
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bhx_model.config import EvaluationConfig
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.nets.vit import compile_blocks
from bhx_model.training import optim
from bhx_model.training.step_outcome import AsyncCopy

#: Steps before the first that counts, and the most that count.
WARM, STEPS = 3, 12
#: Seconds of the steps that count, about; and the longest step that a batch is doubled for.
LONG_S, LONGEST_STEP_S = 3.0, 1.0
#: GPUs that a preset's batch is shared by in the paper.
GPUS = 8
#: Share of the GPU's memory that a batch may take.
MEMORY_SHARE = 0.85


@dataclasses.dataclass
class Step:
    """A case on a device, ready to be trained."""

    case: Case
    way: str
    device: torch.device
    objective: nn.Module
    optimizer: torch.optim.Optimizer
    parameters: list[nn.Parameter]

    @classmethod
    def of(cls, case: Case, way: str, device: torch.device) -> Step:
        """Move a case to a device and make what its training takes."""
        model = case.model.to(device).train()
        train = case.config.train
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        if way == PUBLISHED:
            optimizer: torch.optim.Optimizer = torch.optim.AdamW(
                [p for _, p in named], lr=0.0, betas=train.betas
            )
        else:
            optimizer = optim.adamw(optim.parameter_groups(named), betas=train.betas)
        if way == COMPILED:
            compile_blocks(model)
        return cls(case, way, device, model, optimizer, [p for _, p in named])

    @property
    def reads_late(self) -> bool:
        """Whether a step's loss is read when the next step is queued, as the loop does on GPUs."""
        return self.device.type == "cuda" and self.way not in (PUBLISHED, BEFORE)

    def run(self, loss_of: Callable[[Any], torch.Tensor]) -> AsyncCopy:
        """Queue a step, and return a copy of its loss, to be read."""
        train = self.case.config.train
        amp = train.amp == "bf16"
        with cases.attention_of(self.case, self.way):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=amp):
                loss = loss_of(self.objective)
            loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, train.clip or float("inf"))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.case.ema and train.ema is not None:
            self._follow(train.ema[0])
        return AsyncCopy(loss.detach())

    @torch.no_grad()
    def _follow(self, momentum: float) -> None:
        model = cast(FunctionJEPA, self.case.model)
        if self.way not in (PUBLISHED, BEFORE):
            model.update_target(momentum)
            return
        for slow, fast in zip(model.target.parameters(), model.encoder.parameters(), strict=True):
            slow.lerp_(fast, 1 - momentum)  # one kernel for every parameter


def peak_bytes(device: torch.device) -> int:
    """Largest memory since the last `reset_peak`; 0 on a CPU."""
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else 0


def reset_peak(device: torch.device) -> None:
    """Forget the largest memory so far."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def memory_bytes(device: torch.device) -> int:
    """Memory of the GPU; 0 on a CPU."""
    return torch.cuda.mem_get_info()[1] if device.type == "cuda" else 0


def share_of_preset(case: Case, stage: str) -> int:
    """Samples that one of `GPUS` GPUs has of a batch of the preset."""
    if stage == FINETUNING:
        return EvaluationConfig().batch_size
    return max(case.config.train.batch_size // GPUS, 1)


def largest_batch(step: Step, limit_s: float) -> int:
    """Double the batch while twice as much fits, by what the last one took, and a step stays short.

    Parameters
    ----------
    step
        What is tried.
    limit_s
        Seconds after which the last batch that worked is returned.
    """
    if step.device.type != "cuda":
        return 2
    began, batch, before = time.monotonic(), 4, 0
    while True:
        reset_peak(step.device)
        try:
            loss_of = step.case.draw(batch, step.device)
            step.run(loss_of).read()
            start = time.monotonic()
            step.run(loss_of).read()
        except torch.cuda.OutOfMemoryError:
            step.optimizer.zero_grad(set_to_none=True)
            reset_peak(step.device)
            return max(batch // 2, 1)
        taken, peak = time.monotonic() - start, peak_bytes(step.device)
        del loss_of
        more = peak + (2 * (peak - before) if before else peak)  # linear in the batch from the second on
        fits = more <= MEMORY_SHARE * memory_bytes(step.device)
        if not fits or 2 * taken > LONGEST_STEP_S or time.monotonic() - began > limit_s:
            return batch
        before, batch = peak, 2 * batch


def measure(step: Step, batch: int, until: float) -> dict[str, float]:
    """Median time of steps of `batch` samples, and peak memory.

    Parameters
    ----------
    step, batch
        What is measured.
    until
        Wall clock (`time.time`) at which no further step begins; at least one is measured.
    """
    reset_peak(step.device)
    loss_of = step.case.draw(batch, step.device)
    start = time.perf_counter()
    before = step.run(loss_of)
    before.read()
    first = time.perf_counter() - start
    for _ in range(WARM - 1 if step.device.type == "cuda" else 0):
        before = step.run(loss_of)
        before.read()
    seconds: list[float] = []
    most = STEPS if step.device.type == "cuda" else 2
    start = time.perf_counter()
    while len(seconds) < most and (not seconds or (sum(seconds) < LONG_S and time.time() < until)):
        loss = step.run(loss_of)
        (before if step.reads_late else loss).read()
        before = loss
        seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
    if step.reads_late:  # the first was queued only
        before.read()
        seconds = [*seconds[1:], seconds[0] + time.perf_counter() - start]
    return {
        "seconds": statistics.median(seconds), "first_s": first, "steps": len(seconds),
        "peak_bytes": peak_bytes(step.device),
    }  # fmt: skip


def device_flops(step: Step, batch: int) -> int:
    """Operations that PyTorch counts in a step on the device itself, with the kernels that it took."""
    with FlopCounterMode(display=False) as counter:
        step.run(step.case.draw(batch, step.device))
    return counter.get_total_flops()


def rows(
    stage: str, way: str, patches: int, preset: str, device: torch.device, until: float, batch: int | None
) -> Iterator[dict[str, Any]]:
    """Measure a case by the largest batch, or `batch`, and by one GPU's share of the preset's batch if that is smaller.

    Yields
    ------
    dict
        A row of the report for each batch.
    """
    case = cases.case(stage, way, patches, preset)
    step = Step.of(case, way, device)
    if batch is None:
        batch = largest_batch(step, max(until - time.time(), 0) / 3)
    share = share_of_preset(case, stage)
    for size in [batch, share] if share < batch and device.type == "cuda" else [batch]:
        if time.time() > until:
            raise TimeoutError(f"{size} samples a step: its time was up")
        try:
            found = measure(step, size, until)
        except torch.cuda.OutOfMemoryError:
            step.optimizer.zero_grad(set_to_none=True)
            reset_peak(device)
            yield {
                "kind": "step",
                "stage": stage,
                "way": way,
                "patches": patches,
                "batch": size,
                "note": "out of memory",
            }
            continue
        row = {
            "kind": "step", "stage": stage, "way": way, "patches": patches, "batch": size, **found,
            "samples_s": size / found["seconds"],
        }  # fmt: skip
        if way == cases.NOW and device.type == "cuda" and size == batch:
            row["device_flop_sample"] = device_flops(step, size) / size
        yield row
