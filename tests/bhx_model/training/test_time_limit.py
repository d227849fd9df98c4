"""When a training has to end: only where somebody ends it."""

from __future__ import annotations

import math

import pytest
from training_runs import SIX, arguments, run_folder

from bhx_model.training import checkpoint, time_limit, train
from bhx_model.training.saver import Saver

HOUR = 3600.0


@pytest.mark.parametrize(
    ("environment", "max_minutes", "job_minutes", "expected"),
    [
        ({}, None, None, math.inf),
        ({}, None, 1380, math.inf),  # nothing enforces it
        ({}, 2, 1380, 120.0),
        ({"SLURM_JOB_ID": "1"}, None, None, math.inf),
        ({"SLURM_JOB_ID": "1"}, None, 100, 97 * 60),
        ({"PBS_JOBID": "1"}, None, 100, 97 * 60),
        ({"SLURM_JOB_ID": "1"}, 10, 100, 600.0),
        ({"SLURM_JOB_ID": "1"}, None, 10, 540.0),  # a minute at least
        ({"SLURM_JOB_ID": "1"}, None, 1, 0.0),
    ],
)
def test_a_time_limit_counts_where_it_is_enforced(environment, max_minutes, job_minutes, expected):
    assert time_limit.seconds(environment, max_minutes, job_minutes) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (1000.0, 0.97 * 8 * HOUR),  # as Slurm says, not as was asked for: the allocation is another's
        (1000.0 + 4 * HOUR, 0.97 * 4 * HOUR),
        (1000.0 - HOUR, 0.97 * 2 * HOUR),  # a clock that was set back, or forward: as was asked for
        (1000.0 + 9 * HOUR, 0.97 * 2 * HOUR),
    ],
)
def test_slurm_says_when_a_job_ends(monkeypatch, now, expected):
    slurm = {
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_START_TIME": "1000",
        "SLURM_JOB_END_TIME": str(int(1000 + 8 * HOUR)),
    }
    monkeypatch.setattr(time_limit.time, "time", lambda: now)
    assert time_limit.seconds(slurm, None, 120) == pytest.approx(expected)


def test_a_local_training_is_not_stopped_by_the_time_of_a_job(house, tmp_path, monkeypatch):
    words = [*arguments(house, tmp_path, "structure", {**SIX, "train.save_every": 1}), "--job-minutes", "0"]
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    assert train.main(words) == 75
    assert checkpoint.steps(run_folder(tmp_path)) == [1]
    monkeypatch.delenv("SLURM_JOB_ID")
    assert train.main(words) == 0


def test_a_slow_save_is_begun_in_time(house, tmp_path, monkeypatch):
    """With 5 minutes left and saves that take six, it ends at once."""
    save = Saver.save

    def slow(self, *arguments, **more):
        save(self, *arguments, **more)
        self.longest_s = 360.0

    monkeypatch.setattr(Saver, "save", slow)
    monkeypatch.setattr(train, "STARTED", train.time.monotonic())
    words = arguments(house, tmp_path, "structure", {**SIX, "train.save_every": 2})
    assert train.main([*words, "--max-minutes", "5"]) == 75
    assert checkpoint.steps(run_folder(tmp_path)) == [2, 3]


def test_a_clock_that_jumps_changes_nothing(house, straight, tmp_path, monkeypatch, capsys):
    """Back and forth by days, at every look: rates, limits and waits are of the clock that only goes on."""
    jumps = iter(range(10**6))
    now = train.time.time
    monkeypatch.setattr(train.time, "time", lambda: now() + (-1) ** next(jumps) * 1e6)
    assert train.main([*arguments(house, tmp_path, "structure"), "--max-minutes", "60"]) == 0
    said = capsys.readouterr().err
    assert " d to go" not in said
    assert " h " not in said
    written, reference = (
        (folder / "out/metrics.jsonl").read_text() for folder in (tmp_path, straight / "structure")
    )
    assert written == reference
