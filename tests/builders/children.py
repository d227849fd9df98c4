"""What the tests run in processes of their own. They are forked from a server that has imported torch once."""

from __future__ import annotations

import errno
import itertools
import json
import math
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bhx_model.training import loop, stages, train

SERVER = multiprocessing.get_context("forkserver")
# PyTorch imports its compiler when the first optimiser is made, which takes longer than a training of a few steps
SERVER.set_forkserver_preload(["bhx_model.training.train", "torch._dynamo"])


def environment(rank: int, world: int, port: int) -> dict[str, str]:
    """What torchrun sets."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _run(
    arguments: list[str],
    environ: dict[str, str],
    fault: Callable[[], None] | None,
    log: Path | None,
    main: Callable[[list[str]], int],
) -> None:
    os.environ.update(environ)
    # what a shell starts in the background ignores it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    train.torch.set_num_threads(1)
    if log is not None:
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666), 2)
    if fault is not None:
        fault()
    sys.exit(main(arguments))


def start(
    arguments: list[str],
    environ: dict[str, str] | None = None,
    fault: Callable[[], None] | None = None,
    log: Path | None = None,
    main: Callable[[list[str]], int] = train.main,
) -> Any:
    """Start a command in a process of its own, with a fault that is put in first, and stderr in a file."""
    child = SERVER.Process(target=_run, args=(arguments, environ or {}, fault, log, main))
    child.start()
    return child


def start_all(
    arguments: list[str],
    world: int,
    environ: dict[str, str] | None = None,
    faults: dict[int, Callable[[], None]] | None = None,
    log: Path | None = None,
    main: Callable[[list[str]], int] = train.main,
) -> list[Any]:
    """Start a command of several processes, as torchrun would; `faults` are those of some ranks."""
    port = free_port()
    return [
        start(
            arguments,
            environment(rank, world, port) | (environ or {}),
            (faults or {}).get(rank),
            log and log.with_suffix(f".{rank}"),
            main,
        )
        for rank in range(world)
    ]


def at_sync_of(ending: str, fault: Callable[[], None]) -> None:
    """From now on do something when a file or folder, whose path ends so, is written to the disk."""
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        if str(Path(f"/proc/self/fd/{descriptor}").readlink()).endswith(ending):
            fault()
        sync(descriptor)

    os.fsync = fsync


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_while_saving() -> None:
    """The third checkpoint's tensors are written, and it is not yet in its place."""
    at_sync_of(".unfinished-step-0000003/optim.safetensors", die)


def fill_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fill_disk_while_saving() -> None:
    at_sync_of(".unfinished-step-0000002/state.json", fill_disk)


def spoil_a_batch() -> None:
    """The second step's loss is not a number, in this process alone."""
    forward, calls = stages.StructureMAE.forward, itertools.count(1)

    def spoilt(*arguments: Any) -> Any:
        loss, stats = forward(*arguments)
        return loss * (math.nan if next(calls) == 2 else 1.0), stats

    stages.StructureMAE.forward = spoilt  # type: ignore[method-assign]


def read_late() -> None:
    """What a step came to is read when the next one is queued, as on a GPU."""
    loop.reads_late = lambda device: True


def spoil_a_batch_and_read_late() -> None:
    spoil_a_batch()
    read_late()


def end(children: list[Any]) -> list[int]:
    """Exit codes; a child that does not end within two minutes fails the test."""
    for child in children:
        child.join(120)
        if child.exitcode is None:
            child.kill()
            child.join()
    return [child.exitcode for child in children]


def wait_for(condition: Any, seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "what the test waits for did not happen"
        time.sleep(0.01)


def kill(child: Any) -> None:
    os.kill(child.pid, signal.SIGKILL)
    child.join()


def gradients(rank: int, world: int, port: int, preset: dict, sources: Any, step: int, out: Path) -> None:
    """Save the gradients of one step (rank 0) and the keys every process had."""
    os.environ.update(environment(rank, world, port))
    import torch
    from safetensors.torch import save_file

    from bhx_model.config import load_preset
    from bhx_model.training import distributed, loop, stages

    torch.set_num_threads(1)
    config = load_preset(preset["stage"], "tiny").override(preset["set"])
    with distributed.start() as processes:
        stage = stages.open_stage(config, sources, 0, processes.device)
        torch.manual_seed(0)
        model = stage.build().to(processes.device)
        objective = torch.nn.parallel.DistributedDataParallel(model) if world > 1 else model
        parts, weights = loop.rank_share(stage, step, processes)
        losses, _ = loop.backward(objective, stage, parts, weights, processes)
        mean = processes.sum([sum(a * b for a, b in zip(losses.tolist(), weights, strict=True))])[0]
        keys = [key for part, w in zip(parts, weights, strict=True) if w for key in part.keys]
        (out / f"keys-{rank}.json").write_text(json.dumps({"keys": keys, "loss": mean, "parts": len(parts)}))
        if rank == 0:
            found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
            save_file(
                {name: g.contiguous().cpu() for name, g in found.items()}, out / "gradients.safetensors"
            )
        # gloo may wait for ever where the processes part before its last user is gone
        del objective


def gradients_of(
    world: int, preset: dict, sources: Any, step: int, out: Path
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Gradients of one step of `world` processes, and what each of them reports: its keys, the loss, its parts."""
    from safetensors.torch import load_file

    out.mkdir()
    port = free_port()
    listed = [
        SERVER.Process(target=gradients, args=(rank, world, port, preset, sources, step, out))
        for rank in range(world)
    ]
    for child in listed:
        child.start()
    assert end(listed) == [0] * world
    reports = [json.loads((out / f"keys-{rank}.json").read_text()) for rank in range(world)]
    return load_file(out / "gradients.safetensors"), reports


def keys_of(reports: list[dict[str, Any]]) -> list[str]:
    """Keys of all processes together."""
    return sorted(key for one in reports for key in one["keys"])
