"""The cache that Snakemake reads, the command, and what importing costs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from small_bids import write_image, write_subject

from bhx_prep import cli
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.ingest import index


@pytest.fixture
def built(monkeypatch):
    """Names of the cohorts that are built, in order."""
    names = []
    original = index.build

    def counting(name, cohort, **options):
        names.append(name)
        return original(name, cohort, **options)

    monkeypatch.setattr(index, "build", counting)
    return names


def test_the_cache_is_built_once(tmp_path, built):
    write_subject(tmp_path / "data")
    cohort, cache = CohortSection(input="bids", root=tmp_path / "data"), tmp_path / "cache"
    first, second = index.load(cache, "study", cohort), index.load(cache, "study", cohort)
    assert built == ["study"]
    assert first.equals(second)
    assert first.schema.equals(index.SCHEMA)
    assert sorted(path.name for path in cache.iterdir()) == ["study.json", "study.parquet"]


@pytest.mark.parametrize(
    "change", ["config", "subject", "inherited sidecar", "version", "torn stamp", "no table"]
)
def test_what_makes_it_stale(tmp_path, built, monkeypatch, change):
    root, cache = tmp_path / "data", tmp_path / "cache"
    write_subject(root)
    (root / "task-rest_bold.json").write_text("{}")
    cohort = CohortSection(input="bids", root=root)
    index.load(cache, "study", cohort)
    if change == "config":
        cohort = CohortSection(input="bids", root=root, tasks=("nback",))
    elif change == "subject":
        write_subject(root, "02")
    elif change == "inherited sidecar":
        os.utime(root / "task-rest_bold.json", (1, 1))
    elif change == "version":
        monkeypatch.setattr(index, "SCHEMA_VERSION", index.SCHEMA_VERSION + 1)
    elif change == "torn stamp":
        (cache / "study.json").write_text('{"key": ')
    else:
        (cache / "study.parquet").unlink()
    index.load(cache, "study", cohort)
    assert built == ["study", "study"]


def test_rows_that_stay_the_same_keep_their_file(tmp_path):
    root, cache = tmp_path / "data", tmp_path / "cache"
    write_subject(root)
    index.load(cache, "study", CohortSection(input="bids", root=root))
    os.utime(cache / "study.parquet", (1, 1))
    (root / "README").write_text("new")  # the folder's time changes, the scans do not
    index.load(cache, "study", CohortSection(input="bids", root=root))
    assert (cache / "study.parquet").stat().st_mtime == 1


def test_jobs_read_the_cache_as_it_is(tmp_path, built):
    root, cache = tmp_path / "data", tmp_path / "cache"
    write_subject(root)
    cohort = CohortSection(input="bids", root=root)
    with pytest.raises(ValueError, match=r"cohort study has no index in .*: run `bhx index study` first"):
        index.load(cache, "study", cohort, build_if_stale=False)
    index.load(cache, "study", cohort)
    write_subject(root, "02")
    assert index.load(cache, "study", cohort, build_if_stale=False).num_rows == 2
    assert built == ["study"]


def test_a_broken_cache_is_replaced(tmp_path):
    root, cache = tmp_path / "data", tmp_path / "cache"
    write_subject(root)
    cohort = CohortSection(input="bids", root=root)
    index.load(cache, "study", cohort)
    (cache / "study.parquet").write_bytes(b"torn")
    (cache / "study.json").unlink()
    assert index.load(cache, "study", cohort).num_rows == 2


def test_a_failed_write_leaves_the_old_cache(tmp_path, monkeypatch):
    root, cache = tmp_path / "data", tmp_path / "cache"
    write_subject(root)
    cohort = CohortSection(input="bids", root=root)
    index.load(cache, "study", cohort)
    before = (cache / "study.parquet").read_bytes()

    def full(table, where, **options):
        where.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    write_subject(root, "02")
    with pytest.raises(OSError, match="No space left"):
        index.load(cache, "study", cohort)
    assert (cache / "study.parquet").read_bytes() == before
    assert sorted(path.name for path in cache.iterdir()) == ["study.json", "study.parquet"]


def test_a_cohort_that_vanished_is_a_sentence(tmp_path):
    cohort = CohortSection(input="bids", root=tmp_path / "gone")
    with pytest.raises(ValueError, match="there is no folder"):
        index.load(tmp_path / "cache", "study", cohort)


def test_importing_is_cheap():
    heavy = "nibabel nilearn torch bids2table numpy.testing scipy pandas pyarrow.parquet"
    code = (
        f"import sys; import bhx_prep.ingest.index; print([m for m in {heavy.split()!r} if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def write_config(folder, **cohorts):
    (folder / "config.yaml").write_text(json.dumps({"cohorts": cohorts}))


def test_the_command_counts_and_explains(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for label in ("01", "02", "03"):
        write_subject(tmp_path / "data", label)
    write_subject(tmp_path / "data", "02", frames=1)
    write_subject(tmp_path / "data", "03", frames=1)
    write_config(tmp_path, study={"input": "bids", "root": "data"}, lost={"input": "bids", "root": "lost"})
    assert cli.main(["index"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[:6] == [
        "study (input bids): 3 of 3 subjects usable",
        "  bold       1 usable       2 excluded",
        "  t1w        3 usable       0 excluded",
        "  repetition time 2 s (1)",
        "  length 0.3 to 0.3 min",
        "        2 bold (sub-02, ..): there is one frame only: expected a series",
    ]
    assert "ERROR cohort lost: there is no folder" in err
    assert cli.main(["index", "study"]) == 0
    assert cli.main(["index", "studdy"]) == 1
    assert "no cohort 'studdy' in config.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(("function", "call"), [("_write", 1), ("Path.replace", 1), ("Path.replace", 2)])
def test_a_killed_index_is_made_again(tmp_path, monkeypatch, kill_at, function, call):
    monkeypatch.chdir(tmp_path)
    write_subject(tmp_path / "data", "01")
    write_config(tmp_path, study={"input": "bids", "root": "data"})
    cached = [index.CACHE / f"study.{ending}" for ending in ("parquet", "json")]
    assert cli.main(["index"]) == 0
    calm = [path.read_bytes() for path in cached]
    shutil.rmtree(index.CACHE)
    kill_at("bhx_prep.ingest.index", function, call, ["index"])
    assert not cached[1].exists()  # nothing counts before it
    assert cli.main(["index"]) == 0
    assert [path.read_bytes() for path in cached] == calm


@pytest.mark.parametrize(
    "change", ["sidecar", "image", "fixed sidecar", "session", "image gone", "odd folder"]
)
def test_a_change_below_a_subject_is_seen_and_only_they_are_read(tmp_path, monkeypatch, change):
    root, cache = tmp_path / "data", tmp_path / "cache"
    for label in ("01", "02"):
        write_subject(root, label)
    (root / "sub-a b").mkdir()
    cohort = CohortSection(input="bids", root=root)
    before = index.load(cache, "study", cohort).to_pylist()
    read = []
    original = index.build

    def noting(name, cohort, **options):
        read.append(cohort.subjects)
        return original(name, cohort, **options)

    monkeypatch.setattr(index, "build", noting)
    bold = root / "sub-02/func/sub-02_task-rest_bold.nii.gz"
    if change == "sidecar":
        bold.with_name("sub-02_task-rest_bold.json").write_text('{"RepetitionTime": 2.5}')
    elif change == "image":
        bold.write_bytes(b"")
    elif change == "fixed sidecar":
        bold.with_name("sub-02_task-rest_bold.json").write_text("{")
        index.load(cache, "study", cohort)
        read.clear()
        bold.with_name("sub-02_task-rest_bold.json").write_text('{"RepetitionTime": 2.0}')
    elif change == "session":
        write_image(root / "sub-02/ses-b/func/sub-02_ses-b_task-rest_bold.nii.gz", frames=10)
    elif change == "image gone":
        bold.unlink()
    else:
        (root / "sub-a b/file").write_text("")
    after = index.load(cache, "study", cohort).to_pylist()
    assert read == [None if change == "odd folder" else ("02",)]
    assert after == original("study", cohort).to_pylist()
    assert (after == before) == (change in ("fixed sidecar", "odd folder"))
    assert index.load(cache, "study", cohort).to_pylist() == after
    assert len(read) == 1


def test_refresh_reads_everything_again(tmp_path, monkeypatch, capsys, built):
    monkeypatch.chdir(tmp_path)
    write_subject(tmp_path / "data")
    write_config(tmp_path, study={"input": "bids", "root": "data"})
    for words in (["index"], ["index"], ["index", "--refresh"]):
        cli.main(words)
    assert built == ["study", "study"]
