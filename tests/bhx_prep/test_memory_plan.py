"""Trainings beside the memory of their GPUs, as `bhx config check` and `bhx doctor` print it."""

from __future__ import annotations

import json

import pytest

from bhx_model.errors import ConfigError
from bhx_prep import memory_plan, startup
from bhx_prep.cli import main
from bhx_prep.commands import doctor
from bhx_prep.config import config


def study(**experiment):
    return {
        "cohorts": {"a": {"input": "timeseries", "root": "a"}},
        "experiments": {"e": {"cohorts": ["a"], "gpus": 8, **experiment}},
    }


def plans(**experiment):
    return {plan.stage: plan for plan in memory_plan.plans(config.check(study(**experiment)))}


def test_parts_follow_the_gpus(pretended_gpus):
    on_80 = {stage: plan.accumulate for stage, plan in plans(gpu_memory_gb=80).items()}
    assert on_80 == {"structure": 1, "function": 2, "fusion": 1}
    on_one = {stage: plan.accumulate for stage, plan in plans(gpu_memory_gb=80, gpus=1).items()}
    assert all(on_one[stage] >= 2 * on_80[stage] for stage in on_80)
    assert all(plan.accumulate == 1 for plan in plans().values()), "nothing is known of the GPUs"
    pretended_gpus("GPU-a", memory="24576")
    assert {plan.memory_gb for plan in plans().values()} == {24.0}
    assert {plan.memory_gb for plan in plans(gpu_memory_gb=40).values()} == {40}
    elsewhere = memory_plan.plans(config.check(study()), elsewhere=True)
    assert {plan.memory_gb for plan in elsewhere} == {None}


def test_what_is_not_trained_on_gpus_is_not_estimated(pretended_gpus, tmp_path):
    assert not plans(gpus=0)
    assert plans(stages=["function"]).keys() == {"function"}
    given = study()
    given["experiments"]["e"] = {"weights": str(tmp_path / "absent"), "gpus": 1}
    assert not memory_plan.plans(config.check(given))


def test_what_cannot_fit_is_refused(pretended_gpus, tmp_path):
    raw = study(gpu_memory_gb=6)
    found = list(memory_plan.plans(config.check(raw)))
    lines = list(memory_plan.mistakes(found))
    assert lines, "of a base model's function and fusion not one sample fits"
    for line in lines:
        assert len(line) <= 200
        assert "of a GPU's 6 GB: set model.checkpointing to true, or choose a smaller preset" in line
    (tmp_path / "config.yaml").write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match="stage needs about"):
        startup.check_start(config.check(raw), tmp_path, submits=False)
    assert main(["config", "check", str(tmp_path / "config.yaml")]) == 1


def test_a_number_that_is_too_small_and_gpus_without_work_are_said(pretended_gpus):
    few = plans(gpu_memory_gb=24, overrides={"fusion": {"train.accumulate": 1}})["fusion"]
    assert few.accumulate == 1
    assert few.warning is not None
    assert "with train.accumulate 1 a GPU's 24 GB are not enough: set it to 4, or to auto" in few.warning
    idle = plans(overrides={"fusion": {"train.batch_size": 6}})["fusion"]
    assert idle.warning == (
        "experiments.e.overrides.fusion: train.batch_size 6 leaves 2 of 8 GPUs idle: change one of them"
    )


def test_fine_tuning_that_would_not_fit_is_said_before_anything_is_trained(pretended_gpus):
    raw = study(gpu_memory_gb=24)
    raw["endpoints"] = {"x": {"cohort": "a", "column": "age", "kind": "regression", "methods": ["finetune"]}}
    checked = config.check(raw)
    (line,) = memory_plan.finetuning_warnings(checked, memory_plan.plans(checked))
    assert line.startswith("endpoints.x.finetune: 16 runs at a time need about ")
    assert line.endswith("with experiment e, of a GPU's 24 GB: set accumulate to 3")
    raw["endpoints"]["x"]["finetune"] = {"accumulate": 3}
    checked = config.check(raw)
    assert not list(memory_plan.finetuning_warnings(checked, memory_plan.plans(checked)))


def test_both_commands_print_the_estimate(pretended_gpus, tmp_path, capsys):
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(study(gpu_memory_gb=80)))
    assert main(["config", "check", str(file)]) == 0
    said = capsys.readouterr().err
    for stage in ("structure", "function", "fusion"):
        assert f"experiments.e, {stage} on 8 GPUs: about " in said
    assert "with train.accumulate 2 32 at a time" in said
    printed = [finding.what for finding in doctor.examine(file)]
    assert sum("on 8 GPUs: about" in what for what in printed) == 3
    assert "0 GPUs here, an experiment asks for 8" in printed
    pretended_gpus("GPU-a")
    file.write_text(json.dumps(study(gpus=0)))
    found = {finding.what: finding.fix for finding in doctor.examine(file)}
    assert "1 GPUs here (H100, 80 GB, driver 535.54), 0 asked for" in found
    assert found["experiments e train on the CPU (gpus: 0)"] == "set `gpus`"


def test_rois_are_counted(tmp_path):
    raw = study() | {"atlas": {"parcels": 200}}
    assert memory_plan.count_rois(config.check(raw).atlas) == 200
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    own = {"source": "files", "name": "own", "names": str(tmp_path / "names.txt")}
    assert (
        memory_plan.count_rois(config.check(raw | {"atlas": own, "features": {"harmonics": "none"}}).atlas)
        == 3
    )
