"""`bhx simulate`: a cohort without images that the index takes for one."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
import pytest
import yaml
from bids_validation import errors
from hypothesis import given
from hypothesis import strategies as st

from bhx_prep.cli import main
from bhx_prep.commands import simulate
from bhx_prep.config import config
from bhx_prep.ingest import index


@given(st.integers(1, 40), st.integers(0, 60), st.integers(1, 200))
def test_sessions_and_runs_add_up(subjects: int, more: int, bold: int) -> None:
    size = simulate.Size(subjects, subjects + more, bold, 0.8, 100)
    sessions = list(size.sessions())
    assert len({subject for subject, _, _ in sessions}) == subjects
    assert len(sessions) == size.t1w
    assert sum(runs for _, _, runs in sessions) == bold
    assert len({(subject, session) for subject, session, _ in sessions}) == size.t1w


@pytest.mark.parametrize("input", ["fmriprep", "bids"])
def test_the_index_finds_what_was_asked_for(
    input: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["--subjects", "6", "--t1w", "8", "--bold", "14", "--tr-s", "0.8", "--frames", "383"]
    assert main(["simulate", *words, "--input", input, "--name", "abcd", "--out", str(tmp_path)]) == 0
    assert "6 subjects, 8 T1, 14 BOLD runs" in capsys.readouterr().err
    settings = config.load(tmp_path / "config.yaml").cohorts["abcd"]
    rows = index.build("abcd", settings.model_copy(update={"root": tmp_path / "abcd"}))
    assert set(rows["status"].to_pylist()) == {"ok"}
    assert pc.all(rows["synthetic"]).as_py()
    bold = rows.filter(pc.equal(rows["modality"], "bold"))
    assert (len(bold), len(rows)) == (14, 22)
    assert set(zip(bold["tr_s"].to_pylist(), bold["n_frames"].to_pylist(), strict=True)) == {(0.8, 383)}
    participants = (tmp_path / "abcd/participants.tsv").read_text().splitlines()
    assert participants[0] == "participant_id\tage\tsex"
    assert len(participants) == 7


@pytest.mark.parametrize("input", ["fmriprep", "bids"])
def test_the_validator_of_bids_accepts_a_cohort(input: str, tmp_path: Path) -> None:
    simulate.simulate(tmp_path / "made", input, simulate.Size(2, 3, 4, 0.8, 100))
    assert errors(tmp_path / "made") == []


def test_two_cohorts_share_a_study_and_none_is_written_over(tmp_path: Path, capsys) -> None:
    words = ["--subjects", "2", "--out", str(tmp_path)]
    assert main(["simulate", *words, "--name", "a"]) == 0
    assert main(["simulate", *words, "--name", "b"]) == 0
    assert list(yaml.safe_load((tmp_path / "config.yaml").read_text())["cohorts"]) == ["a", "b"]
    assert main(["simulate", *words, "--name", "b"]) == 1
    assert "has a cohort b already" in capsys.readouterr().err


@pytest.mark.parametrize("mine", ["# mine\ncohorts: {}\n", "{}", "", "edited"])
def test_a_configuration_of_the_users_is_not_replaced(tmp_path: Path, capsys, mine: str) -> None:
    file = tmp_path / "config.yaml"
    words = ["simulate", "--subjects", "2", "--out", str(tmp_path)]
    if mine == "edited":
        assert main([*words, "--name", "before"]) == 0
        mine = file.read_text() + "# and a note\n"
    file.write_text(mine)
    assert main([*words, "--name", "a"]) == 1
    assert f"{file} is there, and `bhx simulate` did not write it as it is" in capsys.readouterr().err
    assert file.read_text() == mine
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--subjects", "0"], "at least 1"),
        (["--subjects", "5", "--t1w", "4"], "every subject has a T1"),
        (["--subjects", "5", "--tr-s", "735"], "0.1 to 20.0 s"),
        (["--name", "../x"], "cohort"),
    ],
)
def test_sizes_that_cannot_be_are_a_sentence(words: list[str], says: str, tmp_path: Path, capsys) -> None:
    assert main(["simulate", "--out", str(tmp_path), *words]) == 1
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_file_takes_a_limited_number_of_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate, "NAMES_PER_FILE", 2)
    simulate.simulate(tmp_path / "c", "bids", simulate.Size(5, 5, 5, 2.0, 100))
    assert len(list((tmp_path / "c/sourcedata/simulated").glob("T1w-*"))) == 3
    images = list((tmp_path / "c").rglob("*_T1w.nii.gz"))
    assert len(images) == 5
    assert max(path.stat().st_nlink for path in images) == 3  # two names and the one in the pool
