"""One table of participants from those of the sites."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bhx_prep.ingest import participants, site_tables
from bhx_prep.ingest.layouts import load


def join(root: Path, ids: tuple[str, ...] = ("participant_id", "ScanDir ID")) -> Path | None:
    return site_tables.join(root, ids, load("adhd200").label)


def test_columns_of_all_sites_are_kept(tmp_path):
    (tmp_path / "NYU_phenotypic.csv").write_text("ScanDir ID,DX,Age \n10001,3,9.1\n10002,,\n,,\n")
    (tmp_path / "KKI_phenotypic.csv").write_bytes(
        "ScanDir ID,DX,Note\r\n1018959,pending,Händigkeit\r\n".encode("latin-1")
    )
    path = join(tmp_path)
    assert path is not None
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False).set_index("participant_id")
    assert list(table.index) == ["sub-1018959", "sub-0010001", "sub-0010002"]
    assert table.loc["sub-0010001"].to_dict() == {
        "table": "NYU_phenotypic.csv", "ScanDir ID": "10001", "DX": "3", "Note": "n/a", "Age": "9.1",
    }  # fmt: skip
    assert table.loc["sub-0010002", "DX"] == "n/a"
    assert "0010001" in participants.read(path).rows


def test_tables_in_the_folders_of_sites(tmp_path):
    for site, label in (("ABIDEII-BNI_1", "29006"), ("ABIDEII-KKI_1", "29273")):
        (tmp_path / site).mkdir()
        (tmp_path / site / "participants.tsv").write_text(f"participant_id\tage\n{label}\t9\n")
    path = site_tables.join(tmp_path, ("participant_id",), load("abide2").label)
    assert path is not None
    assert [line.split("\t")[:2] for line in path.read_text().splitlines()[1:]] == [
        ["sub-29006", "ABIDEII-BNI_1/participants.tsv"],
        ["sub-29273", "ABIDEII-KKI_1/participants.tsv"],
    ]


def test_it_is_made_again_and_another_file_stays(tmp_path):
    (tmp_path / "NYU_phenotypic.csv").write_text("ScanDir ID,DX\n10001,3\n")
    path = join(tmp_path)
    assert path is not None
    assert join(tmp_path) == path
    path.write_text("participant_id\tmine\n")
    assert join(tmp_path) is None
    assert path.read_text() == "participant_id\tmine\n"


def test_a_table_without_ids_is_left_out(tmp_path, caplog):
    (tmp_path / "NYU_phenotypic.csv").write_text("who,DX\n10001,3\n")
    assert join(tmp_path) is None
    assert "has no column of ids" in caplog.text
