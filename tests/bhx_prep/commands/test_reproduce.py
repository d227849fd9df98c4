"""`bhx reproduce`: a list, a page, a refusal, a configuration, a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bhx_prep import cli
from bhx_prep.commands import reproduce
from bhx_prep.config import config


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, int]]:
    """What Snakemake would have been run on."""
    calls: list[tuple[Path, int]] = []

    def run(file: Path, cores: int) -> int:
        calls.append((file, cores))
        return 3

    monkeypatch.setattr(reproduce, "run", run)
    return calls


def abide1(root: Path) -> None:
    tables = root / "Outputs/cpac/filt_global/rois_cc200"
    tables.mkdir(parents=True)
    (tables / "Pitt_0050003_rois_cc200.1D").write_text("#1\t#2\n1\t2\n")
    (root / "Phenotypic_V1_0b_preprocessed1.csv").write_text("SUB_ID,DX_GROUP,SITE_ID\n50003,1,PITT\n")
    (root / "rois_cc200_names.txt").write_text("1\n2\n")


def test_without_a_name_all_are_listed(capsys):
    assert cli.main(["reproduce"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 10
    assert "abide1    ABIDE I: endpoint, access free" in out


def test_absent_data_are_refused_after_the_page(capsys, caplog, asked, here):
    assert cli.main(["reproduce", "abide1"]) == 1
    assert "bhx fetch abide1 --derivative rois_cc200 --out data/abide1" in capsys.readouterr().out
    (error,) = [r.message for r in caplog.records if r.levelname == "ERROR"]
    assert error.startswith(
        "abide1: the data are not there: no data/abide1/Phenotypic_V1_0b_preprocessed1.csv"
    )
    assert asked == []
    assert list(here.iterdir()) == []


def test_an_unknown_name_lists_the_known(caplog):
    assert cli.main(["reproduce", "abide3"]) == 1
    assert "known: abcd, abide1, abide2" in caplog.text


def test_a_plan_writes_the_configuration_and_runs_nothing(asked, here):
    assert cli.main(["reproduce", "abide1", "--plan"]) == 0
    endpoint = config.load(here / "reproduce-abide1.yaml").endpoints["abide1"]
    assert [(c.name, c.values) for c in endpoint.classes] == [("control", ("2",)), ("autism", ("1",))]
    assert asked == []


def test_data_in_their_place_are_run(asked, here):
    abide1(here / "mine")
    assert cli.main(["reproduce", "abide1", "--data", "mine", "--cores", "5"]) == 3
    assert asked == [(Path("reproduce-abide1.yaml"), 5)]
    assert config.load(here / "reproduce-abide1.yaml").cohorts["abide1"].root == Path("mine")


def test_an_edited_configuration_stays_and_anothers_is_not_replaced(asked, here, caplog):
    file = here / "reproduce-abide1.yaml"
    assert cli.main(["reproduce", "abide1", "--plan"]) == 0
    header, rest = file.read_text().split("\n", 1)
    edited = {**yaml.safe_load(rest), "batch_size": 7}
    file.write_text(f"{header}\n{yaml.safe_dump(edited)}")
    assert cli.main(["reproduce", "abide1", "--plan"]) == 0
    assert config.load(file).batch_size == 7
    assert "is not changed" in caplog.text
    file.write_text("results: mine\n")
    assert cli.main(["reproduce", "abide1", "--plan"]) == 1
    assert "is not of `bhx reproduce abide1`: name another with --config" in caplog.text
    assert file.read_text() == "results: mine\n"
