"""Train one stage: masked autoencoding of T1 volumes, JEPA on parcel series, or the fusion of both.

The run lives in a folder named after a hash of everything that decides its result, so the same command resumes where
an earlier one stopped, and a changed input starts afresh. SIGTERM, SIGUSR1, Ctrl-C and ``--max-minutes`` save and end with
exit code 75: start the same command again. A finished run only writes its outputs again. A second training of the same run
waits for the first and then writes its outputs; in a job of Slurm it ends with 75 at once instead.

Keys of presets, for ``--set``: docs/reference/presets.md, or `bhx config presets`.

Examples
--------
::

    python -m bhx_model.train --stage function --preset tiny --set '{"train.steps": 200}' --seed 0 \
        --shards results/pretraining/shards/index.json --split results/experiments/demo/subjects/pretrain.json \
        --rois results/experiments/demo/subjects/rois.npz --run-root results/runs \
        --out results/experiments/demo/function
    torchrun --standalone --nproc-per-node=8 -m bhx_model.train --stage function --preset base ...
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch

from bhx_model.command_line import json_object, minutes, run_command, seed_number, whole_number
from bhx_model.config import PRESETS, STAGES, StageConfig, load_preset
from bhx_model.data.reader import threads_per_process
from bhx_model.errors import SiteError
from bhx_model.nets.attention import without_cudnn
from bhx_model.remote.urls import place
from bhx_model.training import distributed, parts, run_folder, run_lock, stages, time_limit
from bhx_model.training.distributed import Processes
from bhx_model.training.loop import train_loop
from bhx_model.training.trackers import TRACKERS
from bhx_model.training.warm_start import WarmStart

logger = logging.getLogger(__name__)

#: Exit code of a run that was stopped and can be resumed (EX_TEMPFAIL).
STOPPED = 75


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when trained, 1 on an error, 75 when stopped and ready to be resumed."""
    arguments = _parse(argv)

    def command() -> int:
        config = load_preset(arguments.stage, arguments.preset).override(arguments.set)
        deterministic, orphaned = _deterministic(config.train.deterministic), _torchrun_watch()
        with deterministic, distributed.start() as processes, _stop_signals() as stop:
            until = STARTED + time_limit.seconds(os.environ, arguments.max_minutes, arguments.job_minutes)
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
                step_version=arguments.step_version,
                init_from=arguments.init_from,
                workers=_workers(arguments.workers, arguments.cores),
                trackers=[*arguments.track, *["tensorboard"] * arguments.tensorboard],
                should_stop=lambda: stop() or orphaned() or time.monotonic() > until,
                until=until,
            )

    return run_command(command)


def _workers(asked: int | None, cores: int | None) -> int:
    return threads_per_process(cores) if asked is None else asked


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
    step_version: int = 0,
    init_from: Path | None = None,
    workers: int = 2,
    trackers: Sequence[str] = (),
    should_stop: Callable[[], bool] = lambda: False,
    until: float = math.inf,
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
    step_version : int
        Version of the step that asks for the run, part of the run's name: raising it trains anew.
    init_from : Path, optional
        Folder with weights to start from instead of random ones, part of the run's name by their hash.
    workers : int
        Reading threads; any number gives the same result.
    trackers : sequence of str
        Trackers that get the metrics, too: some of `trackers.TRACKERS`.
    should_stop : Callable
        Called after every step; when it is true in any process, the run saves and stops.
    until : float
        Time of `time.monotonic` by which the run saves and stops.

    Returns
    -------
    int
        0, or 75 if it was stopped.

    Raises
    ------
    DataError
        On unusable inputs, on a loss that is not finite, or when a JEPA collapses.
    ConfigError
        On inputs that do not belong together.
    SiteError
        Where a GPU's memory is full, or PyTorch's compiler fails.
    """
    stage = stages.open_stage(config, sources, seed, processes.device)
    warm = None if init_from is None else WarmStart.open(init_from, config.stage, stage.known_rois)
    if warm is not None:
        stage.hashes["init_from"] = warm.sha256
    run = run_root / f"{config.stage}-{run_folder.run_hash(config, seed, stage.hashes, step_version)}"
    run.mkdir(parents=True, exist_ok=True)
    parts.settle(stage, processes, parts.memory(processes))
    in_slurm = "SLURM_JOB_ID" in os.environ  # where others wait for the GPUs on which this one would
    with run_lock.lock_run_dir(run, should_stop, processes, waits=not in_slurm) as ours:
        if not ours:
            return STOPPED
        # the first looks for all: disks of several nodes need not agree yet
        if not processes.any(processes.first and run_folder.is_finished(run)):
            try:
                with without_cudnn(stage.draws_lengths):
                    ended = train_loop(
                        stage, run, processes, workers, trackers, should_stop, step_version, warm, until
                    )
            except torch.OutOfMemoryError as error:
                raise parts.out_of_memory(stage) from error
            except RuntimeError as error:
                if (said := _compiler_fault(error)) is not None:
                    raise SiteError(said) from error
                raise
            if not ended:
                return STOPPED
        elif processes.first:
            logger.info("%s is finished: writing its outputs to %s", run, out)
        processes.first_only(lambda: run_folder.publish(run / "final", out))
        if processes.first:
            logger.info("%s: weights in %s", config.stage, out)
    return 0


def _compiler_fault(error: RuntimeError) -> str | None:
    """Say what to do where PyTorch's compiler failed; None if it did not."""
    # takes as long to import as all of torch, and is there where something was compiled
    faults = sys.modules.get("torch._dynamo.exc")
    if faults is None or not isinstance(error, faults.TorchDynamoException):
        return None
    why = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return (
        f"PyTorch {torch.__version__} cannot compile the network here ({why}): set train.compile to false; the training "
        "goes on from its last checkpoint, with the same results but for rounding"
    )


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Note SIGTERM and SIGUSR1, which schedulers send before a limit, and Ctrl-C, instead of dying from them.

    A second Ctrl-C is none that waits.
    """
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)

    numbers = [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT]
    # what was told to ignore a signal goes on doing so, as what a shell starts in the background
    before = {n: signal.signal(n, note) for n in numbers if signal.getsignal(n) is not signal.SIG_IGN}
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
    _add_inputs(parser)
    _add_job(parser)
    return parser.parse_args(argv)


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    """Add what decides the weights, and where they go."""
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
    add("--seed", type=seed_number, default=0, help="of weights, order, masks and augmentation")
    add(
        "--shards",
        type=place,
        nargs="+",
        required=True,
        metavar="INDEX",
        help="index.json of every cohort, or URLs",
    )
    add("--split", type=Path, required=True, help="subjects to train on and to hold out")
    add("--rois", type=Path, help="rois.npz of the experiment (function and fusion)")
    add(
        "--tokens",
        type=place,
        nargs="+",
        default=[],
        metavar="INDEX",
        help="cached tokens of every cohort (fusion)",
    )
    add("--structure", type=Path, help="trained structure stage (fusion with model.inputs online)")
    add("--function", type=Path, help="trained function stage (fusion with model.inputs online)")
    add("--run-root", type=Path, required=True, help="folder of run folders with checkpoints")
    add("--out", type=Path, required=True, help="folder of the finished weights")
    add(
        "--step-version",
        type=whole_number,
        default=0,
        metavar="N",
        help="version of the step that trains, part of the run's name: another one trains anew",
    )
    add(
        "--init-from",
        type=Path,
        metavar="FOLDER",
        help="weights to start from: an export, a run, an experiment's folder, or what bhx_model.compat load wrote",
    )


def _add_job(parser: argparse.ArgumentParser) -> None:
    """Add arguments on resources and reporting of the job, which do not alter the weights."""
    add = parser.add_argument
    add("--max-minutes", type=minutes, help="save and end with exit code 75 after this time")
    add(
        "--job-minutes",
        type=minutes,
        metavar="N",
        help="time that the job was given: save and end with exit code 75 before it is over, where a scheduler runs this",
    )
    add(
        "--cores",
        type=whole_number,
        metavar="N",
        help="cores of the job, over all its nodes; by default those that this process may use are divided among the node's",
    )
    add(
        "--workers",
        type=whole_number,
        metavar="N",
        help="reading threads of each process instead of its share of the cores; any number gives the same result",
    )
    add(
        "--track",
        nargs="*",
        default=[],
        choices=TRACKERS,
        metavar="NAME",
        help="also send the metrics to these: %(choices)s",
    )
    add("--tensorboard", action="store_true", help="--track tensorboard")
