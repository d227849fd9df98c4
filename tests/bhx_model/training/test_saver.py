"""Checkpoints of several processes: killed while they are saved, by torchrun before they are, and faults of one process."""

from __future__ import annotations

import signal

import children
import pytest
from training_runs import arguments, run_folder, train_here

from bhx_model.errors import SiteError
from bhx_model.training import checkpoint
from bhx_model.training.checkpoint import load_file

THREE = {
    "train.steps": 3,
    "train.warmup_steps": 2,
    "train.batch_size": 4,
    "train.save_every": 1,
    "train.log_every": 1,
}


def nearly_the_same_weights(one, other):
    a, b = (load_file(folder / "out/model.safetensors") for folder in (one, other))
    assert a.keys() == b.keys()
    assert max(float((a[name] - b[name]).abs().max()) for name in a) < 2e-3


def test_killed_while_it_saves_in_every_stage_and_started_with_accumulate_doubled(trained, tmp_path):
    """And beside them another fusion of the same tokens: both end well."""
    tokens = {"tokens": [str(trained["tokens_town"]), str(trained["tokens_ward"])]}
    more = {"structure": {}, "function": {}, "fusion": tokens}
    log = {stage: tmp_path / f"{stage}.log" for stage in more}
    killed = {
        stage: children.start_all(
            arguments(trained, tmp_path / stage, stage, THREE, **files),
            2,
            faults={0: children.die_while_saving},
            log=log[stage],
        )
        for stage, files in more.items()
    }
    for stage, pair in killed.items():
        codes = children.end(pair)
        assert codes[0] == -signal.SIGKILL, stage
        assert codes[1] not in (0, None), stage  # it does not wait for ever
        assert checkpoint.steps(run_folder(tmp_path / stage)) == [1, 2], stage
        assert list(run_folder(tmp_path / stage).glob(".unfinished-*"))
    accumulated = {**THREE, "train.accumulate": 2}
    again = [
        children.start_all(
            arguments(trained, tmp_path / stage, stage, accumulated, **files), 2, log=log[stage]
        )
        for stage, files in more.items()
    ]
    other = {**THREE, "model.hub_tokens": 4}
    again.append(children.start_all(arguments(trained, tmp_path / "other", "fusion", other, **tokens), 2))
    assert [children.end(pair) for pair in again] == [[0, 0]] * 4
    for stage, files in more.items():
        run = run_folder(tmp_path / stage)
        assert f"resuming from {checkpoint.folder(run, 2)}" in (tmp_path / f"{stage}.0").read_text()
        assert not list(run.glob(".unfinished-*"))
        assert train_here(trained, tmp_path / "straight" / stage, stage, THREE, **files) == 0
        nearly_the_same_weights(tmp_path / stage, tmp_path / "straight" / stage)
    assert (tmp_path / "other/out/model.safetensors").exists()


def sluggish(folder, line):
    """PYTHONPATH with which the process that writes checkpoints does something before every sync."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        f"import os, time\nsync = os.fsync\ndef fsync(file):\n    {line}\n    sync(file)\nos.fsync = fsync\n"
    )
    return str(folder)


def test_a_save_that_lasts_longer_than_the_grace_of_torchrun_is_not_lost(house, tmp_path, caplog):
    """Some 4 s of saving, of which torchrun leaves a tenth."""
    environ = {"TORCHELASTIC_RUN_ID": "x", "PYTHONPATH": sluggish(tmp_path / "slow", "time.sleep(0.5)")}
    changes = {**THREE, "train.steps": 400, "train.save_every": 400}
    pair = children.start_all(arguments(house, tmp_path, "structure", changes), 2, environ)
    places = []
    children.wait_for(lambda: places or places.extend(tmp_path.glob("runs/*/metrics.jsonl")))
    children.wait_for(lambda: places[0].read_text().count("\n") >= 2)
    for child in pair:
        child.terminate()
    run = run_folder(tmp_path)
    children.wait_for(lambda: any(run.glob(".unfinished-*")))
    for child in pair:
        children.kill(child)
    assert checkpoint.steps(run) == []
    with caplog.at_level("INFO"):
        assert (
            train_here(
                house, tmp_path, "structure", changes, should_stop=lambda: "resuming from" in caplog.text
            )
            == 75
        )
    assert "is still being written" in caplog.text
    (first, _) = checkpoint.steps(run)
    assert first >= 2
    assert f"resuming from {checkpoint.folder(run, first)}" in caplog.text


def test_under_torchrun_a_full_disk_is_a_sentence_too(house, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    full = "raise OSError(28, 'No space left on device')"
    monkeypatch.setenv("PYTHONPATH", sluggish(tmp_path / "full", full))
    with pytest.raises(SiteError, match=r"step 1 could not be saved in .*, the disk is full; there is none"):
        train_here(house, tmp_path, "structure", {**THREE, "train.save_every": 3}, should_stop=lambda: True)


def test_under_torchrun_a_training_ends_in_the_same_weights(house, tmp_path, monkeypatch):
    assert train_here(house, tmp_path / "straight", "structure", THREE) == 0
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert train_here(house, tmp_path, "structure", {**THREE, "train.save_every": 2}) == 0
    assert checkpoint.steps(run_folder(tmp_path)) == [2, 3]
    nearly_the_same_weights(tmp_path, tmp_path / "straight")


@pytest.mark.parametrize(
    ("rank", "fault", "sentence"),
    [
        (1, children.spoil_a_batch, "the loss of step 2 is not finite, samples: "),
        (0, children.fill_disk_while_saving, "the checkpoint of step 2 could not be saved"),
    ],
)
def test_a_fault_of_one_process_ends_all_with_its_sentence(house, tmp_path, rank, fault, sentence):
    log = tmp_path / "log"
    words = arguments(house, tmp_path, "structure", THREE)
    assert children.end(children.start_all(words, 2, faults={rank: fault}, log=log)) == [1, 1]
    for written in (log.with_suffix(".0"), log.with_suffix(".1")):
        said = written.read_text()
        assert sentence in said
        assert "Traceback" not in said
    assert checkpoint.steps(run_folder(tmp_path)) == [1]
