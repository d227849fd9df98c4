"""`bhx index --duplicates`: folders, subjects and series that are in a study twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from series_batches import brain_series, write_batch

from bhx_prep import cli
from bhx_prep.report.study_duplicates import same_series


def study(folder: Path, monkeypatch: pytest.MonkeyPatch, roots: dict[str, str]) -> None:
    cohorts = {name: {"input": "timeseries", "root": root, "tr_s": 2} for name, root in roots.items()}
    (folder / "config.yaml").write_text(json.dumps({"cohorts": cohorts}))
    monkeypatch.chdir(folder)


def table(root: Path, label: str) -> None:
    func = root / f"sub-{label}" / "func"
    func.mkdir(parents=True)
    np.save(func / f"sub-{label}_task-rest_timeseries.npy", np.zeros((3, 4)))


def test_what_is_there_twice_is_listed(tmp_path, monkeypatch, capsys) -> None:
    for label in ("01", "02"):
        table(tmp_path / "data", label)
    table(tmp_path / "elsewhere", "02")
    (tmp_path / "link").symlink_to("data")
    study(tmp_path, monkeypatch, {"ward": "data", "again": "link", "town": "elsewhere"})
    runs = {f"ward_sub-{k}": brain_series(k, 7) for k in range(3)}
    write_batch(tmp_path / "results/ward/features/batch-00000", runs)
    shifted = {"town_sub-02": brain_series(1, 7)[:, 2:], "town_sub-5": brain_series(5, 7)}
    noise = np.random.default_rng(0).standard_normal(runs["ward_sub-2"].shape)
    shifted["town_sub-7"] = runs["ward_sub-2"] + 0.5 * runs["ward_sub-2"].std(axis=1, keepdims=True) * noise
    write_batch(tmp_path / "results/town/features/batch-00001", shifted)
    assert cli.main(["index", "--duplicates"]) == 0
    listed = capsys.readouterr().out.partition("duplicates:\n")[2].splitlines()
    assert listed == [
        f"  one folder under two names: ward and again both read {tmp_path / 'data'}",
        "  subjects in two cohorts: ward and again have 2 labels in common (sub-01, sub-02)",
        "  subjects in two cohorts: ward and town have 1 label in common (sub-02)",
        "  subjects in two cohorts: again and town have 1 label in common (sub-02)",
        "  the same series: ward_sub-1 = town_sub-02 (r 1.0000, 118 frames, shifted by 2)",
        "  one scan, denoised in two ways: ward_sub-2 = town_sub-7 (r 0.8961, 120 frames)",
        "  not compared yet, since there are no features: again (`snakemake features`)",
    ]


def test_where_nothing_is_twice_it_is_said(tmp_path, monkeypatch, capsys) -> None:
    table(tmp_path / "data", "01")
    study(tmp_path, monkeypatch, {"ward": "data"})
    write_batch(tmp_path / "results/ward/features/batch-00000", {"ward_sub-01": brain_series(0, 7)})
    assert cli.main(["index", "ward", "--duplicates"]) == 0
    assert capsys.readouterr().out.endswith("duplicates:\n  none found\n")


def test_features_that_cannot_be_read_are_named_and_others_compared(tmp_path) -> None:
    file = tmp_path / "ward/features/batch-00000/timeseries.parquet"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"torn")
    twice = {"town_sub-1": brain_series(1, 7), "town_sub-2": brain_series(1, 7)}
    write_batch(tmp_path / "town/features/batch-00000", twice)
    found = same_series(tmp_path, ["ward", "town", "no"])
    assert [(pair.first, pair.second) for pair in found.pairs] == [("town_sub-1", "town_sub-2")]
    assert found.without_features == ["no"]
    assert "ward: " in found.unreadable[0]
    assert "extract the features of this batch again" in found.unreadable[0]


def test_many_pairs_are_counted(tmp_path, monkeypatch, capsys) -> None:
    table(tmp_path / "data", "01")
    study(tmp_path, monkeypatch, {"ward": "data"})
    runs = {f"ward_sub-{k}": brain_series(0, 7, 40) for k in range(8)}
    write_batch(tmp_path / "results/ward/features/batch-00000", runs)
    assert cli.main(["index", "ward", "--duplicates"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert sum("the same series: ward_sub-" in line for line in listed) == 20
    assert listed[-1] == "  and 8 further pairs of runs"


def test_other_atlases_are_not_compared(tmp_path, caplog) -> None:
    write_batch(tmp_path / "a/features/batch-00000", {"a_sub-1": brain_series(1, 7)})
    write_batch(tmp_path / "b/features/batch-00000", {"b_sub-1": brain_series(1, 7)}, 17)
    assert same_series(tmp_path, ["a", "b"]).pairs == []
    assert "features of several atlases" in caplog.text
