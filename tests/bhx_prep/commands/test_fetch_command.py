"""`bhx fetch`: public data sets, from a server on this machine."""

from __future__ import annotations

import re

import pytest
import yaml
from public_bucket import serve
from small_disk import mounted, remount

from bhx_model.errors import ConfigError
from bhx_model.remote import patience
from bhx_prep.cli import main
from bhx_prep.commands import fetch
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.config.layouts import KNOWN
from bhx_prep.ingest.fcp_indi import Wanted
from bhx_prep.io import download

TABLE = "Phenotypic_V1_0b_preprocessed1.csv"
PHENOTYPES = """,SUB_ID,SITE_ID,FILE_ID,DX_GROUP,FIQ
0,50010,PITT,Pitt_0050010,1,-9999
1,50002,PITT,no_filename,1,103
2,50003,PITT,Pitt_0050003,1,124
3,51456,CALTECH,Caltech_0051456,2,-9999
"""
PCP = "data/Projects/ABIDE_Initiative"
TABLES = f"{PCP}/Outputs/cpac/filt_global/rois_cc200"


def roi_table(n):
    return ("# #1\t#2\n" + "".join(f"{i}\t{n}\n" for i in range(5))).encode()


def raw_site(prefix, site, labels):
    files = {
        f"{prefix}/{site}/participants.tsv": b"participant_id\tDX_GROUP\n",
        f"{prefix}/{site}/task-rest_bold.json": b'{"RepetitionTime": 2.0}',
        f"{prefix}/{site}/{site}.tar.gz": b"all of it again",
    }
    for label in labels:
        own = f"{prefix}/{site}/sub-{label}"
        files |= {
            f"{own}/anat/sub-{label}_T1w.nii.gz": b"T1",
            f"{own}/func/sub-{label}_task-rest_run-1_bold.nii.gz": label.encode() * 9,
            f"{own}/dwi/sub-{label}_dwi.nii.gz": b"not wanted",
        }
    return files


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(patience, "PAUSE_S", 0.0)


@pytest.fixture
def bucket(tmp_path):
    names = ("Pitt_0050003", "Pitt_0050010", "Caltech_0051456")
    files = {f"{PCP}/{TABLE}": PHENOTYPES.encode()}
    files |= {f"{TABLES}/{name}_rois_cc200.1D": roi_table(name[-2:]) for name in names}
    raw = "data/Projects/ABIDE/RawDataBIDS"
    files |= {"data/Projects/ABIDE/Phenotypic_V1_0b.csv": b"SITE_ID,SUB_ID\n"}
    files |= raw_site(raw, "Caltech", ["0051456", "0051457"]) | raw_site(raw, "Pitt", ["0050003"])
    files |= raw_site("data/Projects/ADHD200/RawDataBIDS", "Brown", ["0026001"])
    files |= {"data/Projects/ADHD200/RawDataBIDS/Brown_phenotypic.csv": b"ScanDir ID,DX\r\n26001,pending\r\n"}
    with serve(tmp_path / "bucket", files) as server:
        yield server


@pytest.fixture
def run(bucket, tmp_path):
    def call(*words):
        return main(["fetch", *words, "--out", str(tmp_path / "out"), "--from", bucket.address])

    return call


def there(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_tables_of_some_subjects(run, tmp_path, caplog):
    assert run("abide1", "--derivative", "rois_cc200", "--subjects", "2") == 0
    folder = "Outputs/cpac/filt_global/rois_cc200"
    expected = [
        f"{folder}/Pitt_0050003_rois_cc200.1D",
        f"{folder}/Pitt_0050010_rois_cc200.1D",
        TABLE,
        "rois_cc200_names.txt",
    ]
    assert there(tmp_path / "out") == expected
    assert "2 subjects of 1 sites: 2 autism" in caplog.text
    assert "all of one diagnosis" in caplog.text


def test_terms_come_first_and_even_where_all_else_is_quiet(run, caplog):
    assert run("abide1", "--subjects", "1", "-q") == 0
    assert "CC BY-NC-SA 3.0" in caplog.messages[0]


def test_the_section_of_the_configuration_can_be_used(run, tmp_path, caplog):
    assert run("abide1", "--subjects", "1") == 0
    sections = yaml.safe_load(caplog.messages[-1].partition("\n")[2])
    cohort = CohortSection.model_validate(sections["cohorts"]["abide1"])
    assert sections["atlas"]["name"] == "CC200"
    assert (tmp_path / "out" / "rois_cc200_names.txt").read_text() == "#1\n#2\n"
    assert cohort.layout == "abide1"
    assert cohort.phenotypes.exists()


def test_the_same_command_again_downloads_nothing(run, bucket, caplog):
    run("abide1")
    asked = list(bucket.sent())
    assert run("abide1") == 0
    assert bucket.sent() == asked
    assert "0 files downloaded (0 B), 3 were there, 0 failed" in caplog.text


def test_a_dry_run_prints_addresses_and_writes_nothing(run, bucket, tmp_path, capsys):
    assert run("abide1", "--subjects", "Caltech_0051456", "--dry-run", "--strategy", "nofilt_noglobal") == 0
    lines = capsys.readouterr().out.splitlines()
    folder = f"{bucket.address}/{PCP}/Outputs/cpac/nofilt_noglobal/rois_cc200"
    assert lines == [f"{bucket.address}/{PCP}/{TABLE}", f"{folder}/Caltech_0051456_rois_cc200.1D"]
    assert not (tmp_path / "out").exists()


def test_a_dry_run_with_the_table_at_hand_needs_no_network(run, bucket, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / TABLE).write_text(PHENOTYPES)
    assert run("abide1", "--dry-run") == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert bucket.asked == []


def test_the_public_addresses_are_those_of_the_bucket(tmp_path, capsys):
    (tmp_path / TABLE).write_text(PHENOTYPES)
    assert main(["fetch", "abide1", "--subjects", "1", "--dry-run", "--out", str(tmp_path)]) == 0
    address = (
        "https://s3.amazonaws.com/fcp-indi/data/Projects/ABIDE_Initiative/Outputs/cpac/filt_global/rois_cc200"
    )
    assert capsys.readouterr().out.splitlines()[1] == f"{address}/Pitt_0050003_rois_cc200.1D"


@pytest.mark.parametrize("spelt", ["50003", "0050003", "sub-0050003", "Pitt_0050003"])
def test_ids_may_be_spelt_as_anywhere(run, tmp_path, spelt):
    assert run("abide1", "--subjects", spelt) == 0
    assert any(name.endswith("Pitt_0050003_rois_cc200.1D") for name in there(tmp_path / "out"))


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (["50002"], "50002: not preprocessed by the project"),
        (["60001", "60002", "60003", "60004"], "60001, 60002, 60003 and 1 more: not in the table"),
    ],
)
def test_ids_without_files_are_named(run, tmp_path, caplog, ids, says):
    assert run("abide1", "--subjects", *ids) == 1
    assert says in caplog.text


def test_what_failed_is_listed_and_the_rest_comes(run, bucket, tmp_path, caplog):
    key = f"{TABLES}/Pitt_0050010_rois_cc200.1D"
    (bucket.root / key).unlink()
    assert run("abide1") == 1
    assert "Pitt_0050010_rois_cc200.1D: the source has no such file (404)" in caplog.text
    assert len(there(tmp_path / "out")) == 3
    (bucket.root / key).write_bytes(roi_table(1))
    assert run("abide1") == 0


def test_raw_data_come_with_the_tables_of_their_site(run, tmp_path):
    assert run("abide1", "--derivative", "raw", "--subjects", "1") == 0
    assert there(tmp_path / "out") == [
        "Caltech/participants.tsv",
        "Caltech/sub-0051456/anat/sub-0051456_T1w.nii.gz",
        "Caltech/sub-0051456/func/sub-0051456_task-rest_run-1_bold.nii.gz",
        "Caltech/task-rest_bold.json",
        "Phenotypic_V1_0b.csv",
    ]


@pytest.mark.parametrize("option", [{"page": 1}, {"listing": "html"}])
def test_raw_data_of_named_subjects_however_folders_are_listed(tmp_path, option):
    files = raw_site("data/Projects/ADHD200/RawDataBIDS", "KKI", ["1018959", "0010001"])
    files |= raw_site("data/Projects/ADHD200/RawDataBIDS", "NYU", ["0010002"])
    with serve(tmp_path / "bucket", files, **option) as server:
        words = ["--subjects", "10001", "0010002", "--out", str(tmp_path / "out"), "--from", server.address]
        assert main(["fetch", "adhd200", *words]) == 0
    images = [name for name in there(tmp_path / "out") if name.endswith("bold.nii.gz")]
    assert [name.split("/")[:2] for name in images] == [["KKI", "sub-0010001"], ["NYU", "sub-0010002"]]


def test_the_tables_of_the_sites_become_one(run, tmp_path, caplog):
    assert run("adhd200", "--subjects", "1") == 0
    assert "Brown_phenotypic.csv" in there(tmp_path / "out")
    lines = (tmp_path / "out" / "participants_of_sites.tsv").read_text().splitlines()
    assert lines == [
        "participant_id\ttable\tScanDir ID\tDX",
        "sub-0026001\tBrown_phenotypic.csv\t26001\tpending",
    ]
    assert "participants_of_sites.tsv" in caplog.messages[-1]


def test_a_subject_of_no_site_is_named(run, caplog):
    assert run("abide1", "--derivative", "raw", "--subjects", "0051456", "999999") == 1
    assert "999999: no folder in data/Projects/ABIDE/RawDataBIDS" in caplog.text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["adhd200", "--derivative", "rois_cc200"], "need a free account.*layout: adhd200"),
        (["abide2", "--derivative", "rois_aal"], "of ABIDE I only"),
        (["abide1", "--derivative", "alff"], "has no 'alff'; there is: rois_cc200, "),
        (["abide1", "--jobs", "99"], "not between 1 and 16"),
    ],
)
def test_what_cannot_be_fetched_is_a_sentence(run, bucket, caplog, words, says):
    assert run(*words) == 1
    assert len(caplog.messages[-1]) <= 250
    assert re.search(says, caplog.messages[-1])
    assert bucket.asked == []


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("ftp://x", "'ftp://x' is no address"),
        ("https://", "is no address"),
        ("https:///path", "is no address"),
        ("https://host:port/", "is no address"),
        ("https://host:99999/", "is no address"),
        ("https://[::1/", "is no address"),
        ("https://me:secret@host/", "no password"),
        ("https://host/x?token=secret", "no password"),
    ],
)
def test_an_invalid_address_is_refused(tmp_path, caplog, address, says):
    assert main(["fetch", "abide1", "--out", str(tmp_path), "--from", address]) == 1
    assert says in caplog.messages[-1]
    assert "secret" not in caplog.text


@pytest.mark.parametrize("place", ["read-only", "a file"])
def test_a_folder_that_may_not_be_written_is_a_sentence(bucket, tmp_path, caplog, place):
    with mounted(tmp_path / "disk", "1m") as disk:
        (disk / "a file").touch()
        if place == "read-only":
            remount(disk, "ro")
        words = ["--out", str(disk / place), "--from", bucket.address, "--subjects", "1"]
        assert main(["fetch", "abide1", *words]) == 1
    assert re.search("file system is read-only|there is a file of that name", caplog.messages[-1])
    assert len(caplog.messages[-1]) <= 250


def test_a_disk_that_fills_up_is_a_sentence(bucket, tmp_path, caplog):
    """With more room the same command goes on."""
    with mounted(tmp_path / "disk", "1m") as disk:
        (bucket.root / TABLES / "Pitt_0050003_rois_cc200.1D").write_bytes(bytes(1 << 21))
        words = ["--out", str(disk / "x"), "--from", bucket.address, "--subjects", "50003"]
        assert main(["fetch", "abide1", *words]) == 1
        assert "No space left" in caplog.messages[-1]
        assert [p.name[:6] for p in (disk / "x").rglob("*.1D")] == [".part-"]


def test_a_page_in_place_of_the_table_is_refused(run, bucket, caplog):
    bucket.faults[f"{PCP}/{TABLE}"] = ["page"]
    assert run("abide1") == 1
    assert "a web page in place of the file" in caplog.text


def test_a_table_without_its_columns_is_refused(run, bucket, caplog):
    (bucket.root / PCP / TABLE).write_bytes(b"a,b\n1,2\n")
    assert run("abide1") == 1
    assert "no columns SUB_ID and FILE_ID" in caplog.text


def test_more_than_the_disk_holds_is_not_begun(run, bucket, caplog, monkeypatch):
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 3})())
    assert run("abide1", "--derivative", "raw") == 1
    assert "has 3 B free: make room first" in caplog.text
    assert not [key for key in bucket.sent() if "_bold" in key]


def test_every_offer_is_a_known_layout():
    assert fetch.OFFERS.keys() <= KNOWN.keys()


def test_names_that_lead_out_of_the_folder_are_refused(run, bucket, tmp_path, caplog):
    table = PHENOTYPES.replace("Pitt_0050003", "../../0050003")
    (bucket.root / PCP / TABLE).write_text(table)
    assert run("abide1") == 1
    assert "odd name" in caplog.text
    assert there(tmp_path / "out") == [TABLE]


def test_who_stops_it_reads_how_to_go_on(run, monkeypatch, caplog):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(download.Downloads, "_watch", stop)
    assert run("abide1") == 130
    assert "stopped: run the same command again to resume" in caplog.text


@pytest.mark.parametrize("number", ["0", "-3"])
def test_how_many_subjects_is_a_positive_number(number):
    with pytest.raises(ConfigError, match="is no number of subjects"):
        Wanted.of([number])
