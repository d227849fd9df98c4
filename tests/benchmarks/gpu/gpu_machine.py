"""Describe the machine and measure its limits: a matrix product, a copy, and which operations of a step are memory-bound."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gpu_cases as cases
import torch
from gpu_steps import Step
from torch.autograd import DeviceType
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, shape_wrapper

ROOT = Path(__file__).resolve().parents[3]
#: Edge of the square matrices of the product that rates are compared with, and of a CPU's, which may have no bfloat16.
EDGE, CPU_EDGE = 8192, 256
#: What counts an operation's floating point operations.
COUNTS = {**{op: shape_wrapper(count) for op, count in cases.CPU_ATTENTION.items()}, **flop_registry}
#: Operations of a step that are listed, those that take longest.
LISTED = 14


def best_s(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Seconds of a call: the best of a few rounds of `repeats` calls."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    run()
    found = []
    for _ in range(3):
        wait()
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        wait()
        found.append((time.perf_counter() - start) / repeats)
    return min(found)


def rates(device: torch.device) -> dict[str, Any]:
    """Operations per second of a matrix product, and bytes per second of a copy (read and written).

    The product is in bfloat16, on a CPU in float32: without instructions for bfloat16 it takes a hundred times longer.
    """
    gpu = device.type == "cuda"
    edge, dtype = (EDGE, torch.bfloat16) if gpu else (CPU_EDGE, torch.float32)
    a, b = torch.randn(2, edge, edge, device=device).to(dtype)
    product = best_s(lambda: a @ b, device, 20 if gpu else 2)
    source = torch.zeros(2**28 if gpu else 2**22, device=device)
    target = torch.empty_like(source)
    copy = best_s(lambda: target.copy_(source), device, 10 if gpu else 2)
    flop_s, bytes_s = 2 * edge**3 / product, 2 * source.nbytes / copy
    return {
        "edge": edge,
        "dtype": str(dtype).removeprefix("torch."),
        "flop_s": flop_s,
        "bytes_s": bytes_s,
        "ridge": flop_s / bytes_s,
    }


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:  # no git on a bare machine
        return "not known"
    return done.stdout.strip() or "not known"


def describe(device: torch.device) -> dict[str, Any]:
    """Card, versions and rates of this machine."""
    about: dict[str, Any] = {
        "kind": "machine", "date": str(datetime.date.today()), "device": "CPU", "torch": torch.__version__,
        "python": platform.python_version(), "cores": len(os.sched_getaffinity(0)), "commit": _commit(),
        "numpy": importlib.metadata.version("numpy"), "memory_bytes": 0,
    }  # fmt: skip
    if device.type == "cuda":
        about |= {
            "device": torch.cuda.get_device_name(), "gpus": torch.cuda.device_count(),
            "memory_bytes": torch.cuda.mem_get_info()[1], "cuda": torch.version.cuda,
        }  # fmt: skip
    return about | rates(device)


class Traffic(TorchDispatchMode):
    """Counts operations and bytes of every operation that PyTorch calls: what is read and written, once each."""

    def __init__(self) -> None:
        super().__init__()
        self.by_operation: dict[str, dict[str, float]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Count a call."""
        out = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in func._schema.name:
            row = self.by_operation.setdefault(func._schema.name, {"calls": 0, "flop": 0, "bytes": 0})
            row["calls"] += 1
            count = COUNTS.get(func.overloadpacket)
            if count is not None:
                row["flop"] += count(*args, **(kwargs or {}), out_val=out)
            tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
            row["bytes"] += sum(t.nbytes for t in tensors)
        return out


def operations(step: Step, batch: int, machine: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Operations of an eager step, the longest first: their time, what they compute and move, and what bounds them.

    An operation whose FLOP per byte are below the machine's ridge waits for memory, however it is programmed; fused with
    its neighbours it moves less.
    """
    loss_of = step.case.draw(batch, step.device)
    step.run(loss_of).read()
    with Traffic() as traffic:
        step.run(loss_of).read()
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if step.device.type == "cuda" else []
    with torch.profiler.profile(activities=kinds) as profiler:
        step.run(loss_of).read()
    took = "device_time_total" if step.device.type == "cuda" else "cpu_time_total"
    seconds = seconds_of(profiler.events(), traffic.by_operation.keys(), took)
    found = []
    for name, row in traffic.by_operation.items():
        intensity = row["flop"] / max(row["bytes"], 1)
        found.append({
            "operation": name, **row, "seconds": seconds.get(name, 0.0), "intensity": intensity,
            "bound": "memory" if intensity < machine["ridge"] else "compute",
            "least_s": max(row["flop"] / machine["flop_s"], row["bytes"] / machine["bytes_s"]),
        })  # fmt: skip
    return sorted(found, key=lambda row: -row["seconds"])


def seconds_of(events: Iterable[Any], names: Collection[str], took: str) -> dict[str, float]:
    """Seconds of operations with what they call: attention's kernel is started by an operation that attention calls.

    Parameters
    ----------
    events
        Of PyTorch's profiler.
    names
        Operations; one that another of them calls is part of that.
    took
        Attribute of an event with its microseconds.
    """
    found = dict.fromkeys(names, 0.0)
    for event in events:
        if event.device_type != DeviceType.CPU or event.name not in found:
            continue
        above = event.cpu_parent
        while above is not None and above.name not in found:
            above = above.cpu_parent
        if above is None:
            found[event.name] += getattr(event, took) / 1e6
    return found


def roofline(
    stage: str, patches: int, preset: str, batch: int, device: torch.device, machine: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Rows of the report: the longest operations of a step, and all others together."""
    step = Step.of(cases.case(stage, cases.NOW, patches, preset), cases.NOW, device)
    found = operations(step, batch, machine)
    rest = found[LISTED:]
    if rest:
        total = {
            key: sum(row[key] for row in rest) for key in ("calls", "flop", "bytes", "seconds", "least_s")
        }
        intensity = total["flop"] / max(total["bytes"], 1)
        found = [
            *found[:LISTED],
            {"operation": f"{len(rest)} others", **total, "intensity": intensity, "bound": ""},
        ]
    for row in found:
        yield {"kind": "operation", "stage": stage, "patches": patches, "batch": batch, **row}
