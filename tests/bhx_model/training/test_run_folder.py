"""The folder of a run: one process at a time, and outputs of a finished run."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import children
from training_runs import run_folder, train_here

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
