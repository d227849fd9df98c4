"""The folder of a run: one process at a time, and outputs of a finished run."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import children
import pytest
from training_runs import SIX, run_folder, same_weights, stopped_after, train_here

from bhx_model.training.checkpoint import load_file
from bhx_model.training.run_folder import lock_run_dir


def test_a_run_waits_for_the_process_that_is_at_it(house, straight, tmp_path, capfd):
    shutil.copytree(straight / "structure", tmp_path, dirs_exist_ok=True)
    with ThreadPoolExecutor(1) as pool:
        with lock_run_dir(run_folder(tmp_path), lambda: False) as ours:
            assert ours
            stopped = train_here(house, tmp_path, "structure", should_stop=lambda: True)
            assert stopped == 75, "it may be asked to stop while it waits"
            second = pool.submit(train_here, house, tmp_path, "structure")
            said = []
            children.wait_for(
                lambda: said.append(capfd.readouterr().err) or "waiting for it" in "".join(said)
            )
            assert not second.done()
        assert second.result(60) == 0


def test_a_finished_run_only_writes_its_outputs_again(house, tmp_path, capsys):
    assert train_here(house, tmp_path, "structure") == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    shutil.rmtree(tmp_path / "out")
    assert train_here(house, tmp_path, "structure") == 0
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before
    assert "is finished" in capsys.readouterr().err
    assert set(before) == {"model.safetensors", "run.json", "metrics.jsonl"}


@pytest.mark.parametrize("stage", ["structure", "function"])
def test_what_an_older_version_of_the_step_trained_is_not_served(house, straight, tmp_path, stage):
    shutil.copytree(straight / stage, tmp_path, dirs_exist_ok=True)
    old = run_folder(tmp_path) / "final" / "model.safetensors"
    old.write_bytes(b"weights of older code")
    assert train_here(house, tmp_path, stage) == 0
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == old.read_bytes(), "of the same version"
    assert train_here(house, tmp_path, stage, step_version=7) == 0
    same_weights(tmp_path / "out", straight / stage / "out")
    assert old.read_bytes() == b"weights of older code"


def test_settings_that_change_no_result_go_on_from_the_last_checkpoint(house, straight, tmp_path, caplog):
    assert train_here(house, tmp_path, "function", should_stop=stopped_after(3)) == 75
    changes = SIX | {
        "train.accumulate": 2,
        "train.save_every": 1,
        "train.log_every": 3,
        "model.checkpointing": True,
    }
    with caplog.at_level("INFO"):
        assert train_here(house, tmp_path, "function", changes) == 0
    assert "resuming from" in caplog.text
    assert len(list((tmp_path / "runs").iterdir())) == 1
    whole, accumulated = (
        load_file(folder / "model.safetensors")
        for folder in (straight / "function" / "out", tmp_path / "out")
    )
    assert max(float((whole[name] - accumulated[name]).abs().max()) for name in whole) < 2e-3


def test_a_run_of_another_length_is_named_and_not_continued(house, tmp_path, caplog):
    assert train_here(house, tmp_path, "structure", should_stop=stopped_after(3)) == 75
    with caplog.at_level("INFO"):
        train_here(house, tmp_path, "structure", SIX | {"train.steps": 8}, should_stop=stopped_after(1))
        assert "has the same settings and 6 steps" in caplog.text
        caplog.clear()
        train_here(house, tmp_path, "structure", SIX | {"train.lr": 1e-5}, should_stop=stopped_after(1))
    assert "same settings" not in caplog.text
