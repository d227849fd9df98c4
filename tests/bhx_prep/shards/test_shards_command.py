from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from clinic_shards import index_words
from feature_files import GRID

from bhx_prep.shards import command, pack


def test_a_killed_index_gives_the_same_bytes_when_run_again(features: Path, check_kill) -> None:
    def words(out: Path) -> list[str]:
        if not out.exists():
            pack.pack("clinic", 0, features, out)
        return index_words(out)

    check_kill("bhx_prep.shards.command", "Path.replace", 1, words)


def test_command_line_packs_indexes_lists_and_shows(
    features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cli"
    assert (
        command.main(
            ["pack", "--cohort", "clinic", "--batch", "0", "--features", str(features), "--out", str(out)]
        )
        == 0
    )
    assert command.main(index_words(out)) == 0
    assert command.main(["ls", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "bold-00000.tar\tclinic_sub-1_task-rest_run-2\t33 x 2 s\tclinic_sub-1"
    assert len(lines) == 7
    assert command.main(["cat", str(out), "clinic_sub-10_task-rest"]) == 0
    text = capsys.readouterr().out
    assert "bold-00000.tar\troi x frame: 6 x 20\t" in text
    assert "16.7% NaN" in text
    assert command.main(["cat", str(out), "clinic_sub-10"]) == 0
    assert f"t1w-00000.tar\tx x y x z: {GRID[0]} x {GRID[1]} x {GRID[2]}\t" in capsys.readouterr().out
    assert command.main(["cat", str(out), "clinic_sub-99"]) == 1
    assert "bhx shards ls" in capsys.readouterr().err


def test_a_fault_is_one_sentence_and_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bhx_prep.shards.command", "verify", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_reading_shards_needs_no_torch() -> None:
    modules = "bhx_prep.shards.command, bhx_prep.evaluation.baselines.evaluate, bhx_prep.evaluation.splits"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
