"""The child process that measures the parts that `gpu_supervise` requests."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import gpu_cases as cases
import gpu_machine
import gpu_parts
import gpu_steps
import gpu_trainings
import torch
from gpu_supervise import Work, append, read_rows

from bhx_model.config import load_preset
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.nets.mae import StructureMAE
from bhx_model.nets.vit import hold_in_bfloat16

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).resolve().parent
#: Checks that take minutes on a CPU, where `make test` does them.
NOT_ON_A_CPU = "not compiled and not killed and not all_gpus"
#: A line of pytest about a test that has ended.
TEST_LINE = re.compile(r"\S*test_gpu\.py::(?P<test>.+?) (?P<outcome>PASSED|FAILED|ERROR|SKIPPED)\b")
#: Samples of a batch that is embedded.
EMBEDDED = 32

Rows = Iterator[dict[str, Any]]


def main(path: str) -> int:
    """Run all parts that a file lists; a part that fails becomes a row."""
    work = Work.read(path)
    device = torch.device(work.device)
    logging.getLogger("torch").setLevel(logging.ERROR)
    if device.type == "cpu":
        torch.set_num_threads(1)
    for name, limit_s in work.parts:
        now = time.time()
        append(work.rows, {"kind": "part", "part": name, "began": now})
        outcome = "done"
        try:
            for row in run_part(name, work, device, min(now + limit_s, work.until)):
                append(work.rows, row)
        except Exception as error:  # reported as this part's outcome; the next part still runs
            traceback.print_exc()
            outcome = (
                f"failed: {type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
            )
        append(work.rows, {"kind": "part", "part": name, "outcome": outcome, "seconds": time.time() - now})
        if "torch._dynamo" in sys.modules:
            torch._dynamo.reset()
        gc.collect()
        if not still_works(device):  # nothing would work in this process; a new one does the other parts
            return 1
        gpu_steps.reset_peak(device)
    return 0


def still_works(device: torch.device) -> bool:
    """Whether a GPU still computes for this process: after a fault in a kernel it does nothing more."""
    if device.type != "cuda":
        return True
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        traceback.print_exc()
        return False
    return True


def run_part(name: str, work: Work, device: torch.device, until: float) -> Rows:
    """Rows of a part."""
    place = Path(work.place)
    step = gpu_parts.STEP.fullmatch(name)
    if step and name.startswith("count"):
        key = {"stage": step["stage"], "way": step["way"], "patches": int(step["patches"])}
        yield {"kind": "count", **key, "flop": cases.flops_per_sample(**key, preset=work.preset)}
    elif step:
        stage, patches, way = step["stage"], int(step["patches"]), step["way"]
        batch = _batch_so_far(work, stage, patches, way)
        yield from gpu_steps.rows(stage, way, patches, work.preset, device, until, batch)
    elif name == "machine":
        yield gpu_machine.describe(device)
    elif name == "test-gpu":
        yield from gpu_tests(device, until)
    elif name == "embedding":
        yield from embedding(work.preset, device, until)
    elif name == "draw":
        gpu_trainings.draw(place, work.preset)
    elif name == "reading":
        yield from gpu_trainings.reading(place, work.preset, device, until)
    elif name == "tokens":
        yield from gpu_trainings.write_tokens(place, device)
    elif name.startswith("training of "):
        stage, *more = name.removeprefix("training of ").split(", ")
        given: dict[str, Any] = {"cohort": gpu_trainings.MIXED} if "mixed repetition times" in more else {}
        given |= {"compiled": "compiled" in more}
        yield from gpu_trainings.training(place, stage, work.preset, step_s=_step_s(work, stage), **given)
    elif name.startswith("operations of "):
        stage = name.removeprefix("operations of ")
        machine = _machine_so_far(work)
        batch = 2 if device.type == "cpu" else 8
        yield from gpu_machine.roofline(stage, gpu_parts.USUAL, work.preset, batch, device, machine)
    elif name == "learning":
        import gpu_learning

        yield from gpu_learning.learning(place, work.preset, device, until)
    else:
        raise ValueError(name)


def _machine_so_far(work: Work) -> dict[str, Any]:
    for row in read_rows(work.rows):
        if row["kind"] == "machine":
            return row
    raise LookupError("part `machine` gave no rates to compare with")


def _steps_so_far(work: Work, stage: str, patches: int) -> list[dict[str, Any]]:
    rows = (row for row in read_rows(work.rows) if row["kind"] == "step" and "seconds" in row)
    return [row for row in rows if (row["stage"], row["patches"]) == (stage, patches)]


def _batch_so_far(work: Work, stage: str, patches: int, way: str) -> int | None:
    """Batch at which the step was measured before, so that ways of computing it compare; None before it was.

    The published way needs more memory, and finds its own.
    """
    if way == cases.PUBLISHED:
        return None
    return max((row["batch"] for row in _steps_so_far(work, stage, patches)), default=None)


def _step_s(work: Work, stage: str) -> float | None:
    """Seconds of a step of one GPU's share of the preset's batch, by what was measured without reading."""
    found = [row for row in _steps_so_far(work, stage, gpu_parts.USUAL) if row["way"] == cases.NOW]
    if not found:
        return None
    return load_preset(stage, work.preset).train.batch_size / gpu_steps.GPUS / found[-1]["samples_s"]


def gpu_tests(device: torch.device, until: float) -> Rows:
    """Run the tests that compare a GPU with a CPU; what they found counts, too, where they are ended for lack of time."""
    command = [
        sys.executable, "-m", "pytest", "-v", "--tb=short", "-p", "gpu_option", "-p", "no:cacheprovider",
        "-c", os.devnull, f"--rootdir={ROOT / 'tests/bhx_model'}", f"--confcutdir={ROOT / 'tests/bhx_model'}",
        "--no-header", "-W", "ignore", f"--device={device.type}", str(ROOT / "tests/bhx_model/training/test_gpu.py"),
    ]  # fmt: skip
    if device.type == "cpu":
        command += ["-k", NOT_ON_A_CPU]
    path = f"{HERE}:{ROOT}:{ROOT / 'tests/builders'}:{os.environ.get('PYTHONPATH', '')}"
    with tempfile.TemporaryFile("w+") as out:
        tests = subprocess.Popen(
            command, env=os.environ | {"PYTHONPATH": path}, stdout=out, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            tests.wait(max(until - time.time(), 1))
        except subprocess.TimeoutExpired:
            pass
        finally:
            finished = tests.poll() is not None
            with contextlib.suppress(ProcessLookupError):  # the trainings that they have started, too
                os.killpg(tests.pid, signal.SIGKILL)
            tests.wait()
        out.seek(0)
        said = out.read()
    row = check_row(said, finished=finished, passed=finished and tests.returncode == 0)
    if not row["passed"]:
        print(said[-8000:], file=sys.stderr)
    yield row
    if not finished:
        raise TimeoutError("not finished in its time")


def check_row(said: str, *, finished: bool, passed: bool) -> dict[str, Any]:
    """What pytest said, test by test."""
    lines = [line for line in said.splitlines() if line.strip()]
    ends = [found for line in lines if (found := TEST_LINE.match(line))]
    failed = [f"{end['outcome']} {end['test']}" for end in ends if end["outcome"] in ("FAILED", "ERROR")]
    outcome = lines[-1].strip("= ") if lines else "pytest said nothing"
    if not finished:
        n = sum(end["outcome"] == "PASSED" for end in ends)
        outcome = f"ended for lack of time, {n} passed, {len(failed)} failed before: {lines[-1].strip() if lines else ''}"
    return {"kind": "check", "outcome": outcome, "failed": failed, "passed": passed}


@torch.inference_mode()
def embedding(preset: str, device: torch.device, until: float) -> Rows:
    """Tokens per second of both encoders, for inputs on the device."""
    sizes = cases.Sizes.of(preset)
    batch = 2 if device.type == "cpu" else EMBEDDED
    for stage in ("structure", "function"):
        config = load_preset(stage, preset)
        amp = config.train.amp == "bf16"
        model: Any = (
            StructureMAE(cast(Any, config.model), sizes.grid)
            if stage == "structure"
            else FunctionJEPA(cast(Any, config.model), sizes.metadata())
        )
        model = model.to(device).eval()
        if amp:
            hold_in_bfloat16(model)
        for patches in (gpu_parts.USUAL,) if stage == "structure" else (gpu_parts.USUAL, gpu_parts.MOST):
            if time.time() > until:
                raise TimeoutError(f"{stage}, {patches} patches: its time was up")
            if stage == "structure":
                inputs: tuple[Any, ...] = (torch.randn(batch, *sizes.grid, device=device),)
            else:
                series = torch.randn(batch, sizes.rois, patches * cases.FRAMES, device=device)
                inputs = (series, cases.FRAMES)
            with torch.autocast(device.type, torch.bfloat16, enabled=amp):
                n_tokens = batch * model.encode(*inputs).shape[1]
                taken = gpu_machine.best_s(lambda m=model, i=inputs: m.encode(*i), device, 1)
            yield {
                "kind": "tokens", "what": f"{stage} encoder, inputs on the device", "patches": patches, "batch": batch,
                "samples_s": batch / taken, "tokens_s": n_tokens / taken,
            }  # fmt: skip
