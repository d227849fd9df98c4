"""The script for machines with a GPU, on a CPU with tiny sizes: it ends in its time limit and prints its tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent / "gpu"))

import gpu_cases
import gpu_learning
import gpu_machine
import gpu_people
import gpu_report
import gpu_work
import numpy as np
import torch
from gpu_supervise import WORK, Part, Work, read_rows, supervise
from torch.autograd import DeviceType

SCRIPT = Path(__file__).parent / "gpu"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--minutes", "nan"], "--minutes is nan: choose more than 0"),
        (["--minutes", "inf"], "--minutes is inf: choose more than 0"),
        (["--preset", "huge"], "invalid choice: 'huge'"),
        (["--learning", "nan"], "--learning is nan: choose at most 6 minutes"),
    ],
)
def test_what_it_cannot_do_is_a_sentence_before_anything_is_measured(words, said):
    done = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_it_prints_the_tables(tmp_path):
    """The parts that take longest, tests and trainings, are run by hand."""
    chosen = ["machine", "step of fusion, 11 patches, [np]*", "operations of fusion"]
    words = ["--device", "cpu", "--preset", "tiny", "--out", tmp_path, "--only", *chosen]
    done = subprocess.run(
        [sys.executable, SCRIPT, *map(str, words)], capture_output=True, text=True, check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "gpu.md").read_text() == done.stdout.removesuffix("\n")
    assert "nothing here says anything about a GPU" in done.stdout
    assert "Nothing: every part was done." in done.stdout
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    steps = {row["way"]: row for row in rows if row["kind"] == "step"}
    assert steps.keys() == {"now", "published"}
    assert all(row["flop_s"] > 0 and row["samples_s"] > 0 for row in steps.values())
    assert steps["published"]["flop_sample"] > 2 * steps["now"]["flop_sample"]
    # which ones take longest, and are listed, depends on what else the machine does
    listed = [row for row in rows if row["kind"] == "operation" and row["bound"]]
    assert {row["bound"] for row in listed if not row["flop"]} == {"memory"}


@pytest.mark.parametrize(("tests", "passed"), [("def test_one(): pass\n", True), ("", False)])
def test_a_run_of_no_tests_does_not_pass(tmp_path, monkeypatch, tests, passed):
    file = tmp_path / "tests/bhx_model/training/test_gpu.py"
    file.parent.mkdir(parents=True)
    file.write_text(tests)
    monkeypatch.setattr(gpu_work, "ROOT", tmp_path)
    (row,) = gpu_work.gpu_tests(torch.device("cpu"), time.time() + 120)
    assert row["failed"] == []
    assert row["passed"] is passed


def test_tests_that_take_too_long_are_ended_with_all_that_they_started(tmp_path, monkeypatch):
    file = tmp_path / "tests/bhx_model/training/test_gpu.py"
    file.parent.mkdir(parents=True)
    file.write_text("import time\ndef test_one(): time.sleep(600)\n")
    monkeypatch.setattr(gpu_work, "ROOT", tmp_path)
    rows = gpu_work.gpu_tests(torch.device("cpu"), time.time() + 1)
    row = next(rows)
    assert row["passed"] is False
    assert row["outcome"].startswith("ended for lack of time, 0 passed, 0 failed")
    with pytest.raises(TimeoutError, match="not finished"):
        next(rows)


def test_what_tests_found_before_they_were_ended_is_said():
    said = (
        "collecting ... collected 40 items\n\n"
        "training/test_gpu.py::test_a_step[bf16-0.05-fusion-changes2] PASSED   [  2%]\n"
        "training/test_gpu.py::test_one FAILED   [  5%]\n"
        "training/test_gpu.py::test_two SKIPPED (one GPU) [  7%]\n"
        "training/test_gpu.py::test_three "
    )
    row = gpu_work.check_row(said, finished=False, passed=False)
    assert row["failed"] == ["FAILED test_one"]
    assert row["outcome"] == (
        "ended for lack of time, 1 passed, 1 failed before: training/test_gpu.py::test_three"
    )
    row = gpu_work.check_row(
        said + "PASSED [100%]\n\n==== 1 failed, 2 passed in 3.1s ====\n", finished=True, passed=False
    )
    assert row["outcome"] == "1 failed, 2 passed in 3.1s"


def test_operations_are_those_of_the_formula():
    """Of products with weights 2 a multiplication forward and 4 backward, of attention 2 and 5 (it is made again)."""
    config, sizes = gpu_cases.load_preset("structure", "tiny").model, gpu_cases.Sizes.of("tiny")
    n = gpu_cases.case("structure", "now", 11, "tiny").model.n_tokens
    seen, hidden = 1 + round(n * (1 - config.mask_ratio)), round(n * config.mask_ratio)

    def block(queries, keys, width):
        linear = (
            2 * keys * 2 * width**2 + 2 * queries * (2 + 8) * width**2
        )  # keys, values; queries, output, MLP
        return 3 * linear, (2 + 5) * 2 * queries * keys * width

    voxels, inner = config.patch**3, config.decoder_width
    layers = [block(seen, seen, config.width)] * config.depth
    layers += [block(seen + hidden, seen + hidden, inner)] * (config.decoder_depth - 1) + [
        block(hidden, seen + hidden, inner)
    ]
    # nothing flows back into the patches
    edges = (
        2 * 2 * (seen - 1) * voxels * config.width
        + 6 * seen * config.width * inner
        + 6 * hidden * inner * voxels
    )
    wanted = edges + sum(map(sum, layers))
    assert sizes.grid == (32, 48, 32)
    assert gpu_cases.flops_per_sample("structure", "now", 11, "tiny") == pytest.approx(wanted, rel=1e-3)


def test_time_is_that_of_the_operation_with_what_it_calls():
    """The kernels of attention and of a conversion are started by operations that these call."""

    def event(name, microseconds, parent=None, device_type=DeviceType.CPU):
        return SimpleNamespace(
            name=name, device_time_total=microseconds, cpu_parent=parent, device_type=device_type
        )

    attention = event("aten::_scaled_dot_product_flash_attention", 9e6)
    converted = event("aten::_to_copy", 3e6, event("aten::to", 3e6))
    events = [
        attention, event("aten::_flash_attention_forward", 9e6, attention), converted,
        event("aten::copy_", 3e6, converted), event("aten::copy_", 2e6),
        event("aten::copy_", 5e6, device_type=DeviceType.CUDA),
    ]  # fmt: skip
    names = {"aten::_scaled_dot_product_flash_attention", "aten::_to_copy", "aten::copy_", "aten::add"}
    assert gpu_machine.seconds_of(events, names, "device_time_total") == {
        "aten::_scaled_dot_product_flash_attention": 9, "aten::_to_copy": 3, "aten::copy_": 2, "aten::add": 0,
    }  # fmt: skip


def test_after_a_fault_in_a_kernel_another_process_goes_on(monkeypatch, tmp_path):
    rows = tmp_path / "rows"
    work = Work("cpu", "tiny", str(tmp_path), str(rows), time.time() + 60, 0, [("one", 9), ("two", 9)])
    work.write(tmp_path / "work.json")
    monkeypatch.setattr(gpu_work, "run_part", lambda *_: iter(()))
    for works, begun in ((False, ["one"]), (True, ["one", "two"])):
        rows.unlink(missing_ok=True)
        monkeypatch.setattr(gpu_work, "still_works", lambda device, works=works: works)
        assert gpu_work.main(str(tmp_path / "work.json")) == (not works)
        assert [row["part"] for row in read_rows(rows) if "outcome" in row] == begun


@pytest.fixture
def watch(tmp_path):
    """Run parts by a process that does what the name of a part says."""
    script = tmp_path / "parts.py"
    script.write_text(
        "import json, os, sys, time\n"
        f"work = json.load(open(os.environ['{WORK}']))\n"
        "def write(**row):\n"
        "    with open(work['rows'], 'a') as file: print(json.dumps({'kind': 'part', **row}), file=file)\n"
        "for name, limit in work['parts']:\n"
        "    write(part=name, began=time.time())\n"
        "    if name == 'hangs': time.sleep(60)\n"
        "    if name == 'dies': os._exit(3)\n"
        "    write(part=name, outcome='done')\n"
    )

    reports = []

    def run(*parts, seconds=60.0):
        work = Work("cpu", "tiny", str(tmp_path), str(tmp_path / "rows"), time.time() + seconds, 0, [])
        supervise(parts, work, script, dict(os.environ), lambda: reports.append(ended()))
        return ended()

    def ended():
        return {row["part"]: row["outcome"] for row in read_rows(tmp_path / "rows") if "outcome" in row}

    run.reports = reports
    return run


def test_a_part_that_dies_or_hangs_costs_itself_only(watch, monkeypatch):
    monkeypatch.setattr("gpu_supervise.GRACE_S", 0.2)
    found = watch(Part("first", 9), Part("dies", 9), Part("hangs", 0.3), Part("last", 9))
    assert found == {
        "first": "done",
        "dies": "its process ended with code 3",
        "hangs": "stopped: it took longer than 0 s",
        "last": "done",
    }
    # whoever ends the command early finds a report
    assert watch.reports[0]["first"] == "done"
    assert "last" not in watch.reports[0]


def test_what_time_does_not_allow_is_named(watch, monkeypatch):
    monkeypatch.setattr("gpu_supervise.GRACE_S", 0.2)
    found = watch(Part("hangs", 60), Part("last", 9), seconds=1)
    assert found == {"hangs": "stopped: the time was up", "last": "not begun: the time was up"}


def test_schedules_are_arithmetic_of_the_step_that_is_nearest():
    def step(batch, samples_s, way="now"):
        return {
            "kind": "step", "stage": "fusion", "way": way, "patches": 11, "batch": batch, "samples_s": samples_s,
            "share": samples_s / 100,
        }  # fmt: skip

    rows = [
        {"kind": "count", "stage": "fusion", "way": "now", "patches": 11, "flop": 10**13},
        step(64, 50.0),
        step(16, 40.0),
    ]
    rows += [step(16, 45.0, "now, compiled"), step(16, 99.0, "published")]
    presets = {stage: {"steps": 1000, "batch_size": 128} for stage in gpu_report.GOALS}
    *_, fusion = gpu_report.schedules(presets, rows)
    assert fusion["needs_samples_s"] == pytest.approx(128000 / 16 / 3600 / 8)
    assert fusion["needs_flop_s"] == pytest.approx(128000 / 16 / 3600 / 8 * 1e13)
    assert (fusion["way"], fusion["hours"]) == ("now, compiled", pytest.approx(128000 / 45 / 8 / 3600))
    assert fusion["share"] == 0.5
    *_, line = gpu_report.schedule_table([fusion], is_gpu=True)
    assert line.count("met") == 2
    *_, line = gpu_report.schedule_table([fusion], is_gpu=False)
    assert "met" not in line


def test_what_is_planted_in_drawn_people_is_read_by_ridge_regression_and_no_more():
    x = np.random.default_rng(0).standard_normal((100, 40))
    score = x.sum(axis=1)
    group = (score > 0).astype(float)
    assert np.corrcoef(score, gpu_learning.ridge(x, score))[0, 1] > 0.95
    assert gpu_learning.auc(group, gpu_learning.ridge(x, group)) > 0.8
    assert abs(np.corrcoef(score, gpu_learning.ridge(x[::-1], score))[0, 1]) < 0.3
    assert gpu_learning.auc(np.array([1, 1, 0, 0]), np.array([3.0, 1, 1, 0])) == 0.875
    planted, other = (gpu_people.draw(4, 2, 68, planted) for planted in (True, False))
    assert planted.patient.tolist() == [0, 0, 1, 1]
    assert not other.patient.any()
    assert not other.score.any()
    assert [run.shape for _, run in planted.runs] == [(68, 490), (68, 180)] * 2
    assert not np.array_equal(planted.runs[2][1], other.runs[2][1])
