"""A cohort in another order is refused in one sentence; what is not decided, or is there twice, is in the report."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from series_batches import brain_series, write_atlas, write_batch

from bhx_model.errors import DataError
from bhx_prep.features import check_cohort


def brains(networks: int, seeds: range, cohort: str = "ward") -> dict[str, np.ndarray]:
    return {f"{cohort}_sub-{seed:02d}_task-rest": brain_series(seed, networks) for seed in seeds}


def check(folder: Path, networks: int = 7, batches: tuple[str, ...] = ("00000",), **options) -> dict:
    templates = folder / "templates"
    if not templates.exists():
        write_atlas(templates, networks)
    return check_cohort.check("ward", folder, batches, templates, **options)


def test_the_right_order_passes_and_the_report_says_by_which_numbers(tmp_path: Path) -> None:
    write_batch(
        tmp_path / "batch-00000", brains(7, range(3)), excluded=[("ward_sub-9_task-rest", "too short")]
    )
    write_batch(tmp_path / "batch-00002", brains(7, range(3, 5)))
    report = check(tmp_path, batches=("00000", "00002"))
    assert report["runs"] == {"usable": 5, "excluded": 1, "compared": 5}
    assert report["order"]["verdict"] == "confirmed"
    correlations = report["order"]["correlations"]["the connectivity of HCP"]
    assert max(correlations, key=correlations.__getitem__) == "7-network order"
    assert (report["notes"], report["duplicates"], report["n_duplicates"]) == ([], [], 0)


@pytest.mark.parametrize(
    ("strategy", "remedy"),
    [
        ("as given", "set atlas.networks: 7, or correct their names"),
        ("none", "bring atlas.names into the order"),
    ],
)
def test_names_that_lie_are_refused(tmp_path: Path, strategy: str, remedy: str) -> None:
    write_batch(tmp_path / "batch-00000", brains(7, range(4)), 17, strategy=strategy)
    with pytest.raises(
        DataError,
        match=r"the series are in 7-network order: correlation .* \.9\d against \.\d\d"
        rf" in the stated 17-network order; {remedy}",
    ) as refused:
        check(tmp_path, 17)
    assert len(str(refused.value)) <= 200
    report = check(tmp_path, 17, refuses=False)
    assert report["order"]["verdict"] == "other"
    assert report["notes"][0].startswith(
        "ROI order not confirmed by the series: cohort ward: the series are in 7-"
    )


def test_a_few_runs_in_another_order_are_a_note_and_many_an_error(tmp_path: Path) -> None:
    write_batch(tmp_path / "batch-00000", brains(7, range(1, 12)) | brains(17, range(1)))
    report = check(tmp_path)
    assert "1 of 12 runs are in 17-network order, such as ward_sub-00" in report["notes"][0]
    write_batch(tmp_path / "batch-00000", brains(7, range(3, 12)) | brains(17, range(3)))
    with pytest.raises(
        DataError, match=r"3 of 12 runs are in 17-network order, such as ward_sub-00.*exclude"
    ) as refused:
        check(tmp_path)
    assert len(str(refused.value)) <= 200


def test_series_that_fit_no_order_and_an_atlas_without_places_are_notes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    runs = {f"ward_sub-{k}": rng.standard_normal((100, 40)) for k in range(3)}
    write_batch(tmp_path / "batch-00000", runs)
    (note,) = check(tmp_path)["notes"]
    assert "no order of Schaefer7n100p stands out" in note
    assert len(note) <= 200
    write_atlas(tmp_path / "templates", 7, known=False)
    report = check(tmp_path)
    assert report["order"]["verdict"] == "skipped"
    assert "nothing but names is known" in report["notes"][0]


def test_where_no_run_can_be_used_the_most_frequent_reasons_are_said(tmp_path: Path) -> None:
    wrong = "sub-{}_task-rest_timeseries.npy: ROI names are of the 7-network order: set atlas.networks"
    excluded = [(f"ward_sub-{k}_task-rest", wrong.format(k)) for k in range(3)] + [
        ("ward_sub-9", "too short")
    ]
    write_batch(tmp_path / "batch-00000", {}, excluded=excluded)
    with pytest.raises(
        DataError, match=r"ward: none of its 4 BOLD runs can be used: sub-\*_task-.*7-network.*\(3\)"
    ):
        check(tmp_path)
    write_batch(tmp_path / "batch-00000", {}, excluded=excluded, volumes=["ward_sub-1"])
    with pytest.raises(DataError, match="none of its 4 BOLD runs"):
        check(tmp_path)


def test_a_cohort_of_t1_volumes_alone_is_a_note(tmp_path: Path) -> None:
    nothing = [("ward_sub-1", "no BOLD run of task rest"), ("ward_sub-2", "no BOLD run of task rest")]
    write_batch(tmp_path / "batch-00000", {}, excluded=nothing, volumes=["ward_sub-1"])
    report = check(tmp_path)
    assert report["notes"] == ["cohort without BOLD runs: 1 T1 volumes"]
    write_batch(tmp_path / "batch-00000", {}, excluded=nothing)
    with pytest.raises(DataError, match="none of its 2 BOLD runs"):
        check(tmp_path)


def test_a_cohort_whose_t1_volumes_alone_cannot_be_used_says_why() -> None:
    lost = Counter({"the skull was not stripped": 2, "too dark": 1})
    quality = check_cohort.Quality(0, 3, 0, Counter({"no BOLD run of task rest": 3}), lost, are_tables=False)
    said = r"ward: it has no BOLD run, and none of its 3 T1 volumes can be used: the skull was not stripped \(2\)"
    with pytest.raises(DataError, match=said):
        check_cohort._without_runs("ward", quality)


def test_runs_that_are_there_twice_are_listed_across_batches(tmp_path: Path) -> None:
    first = brains(7, range(3))
    twin = {"ward_sub-77_task-rest": 2 * first["ward_sub-01_task-rest"][:, 3:] + 5}
    write_batch(tmp_path / "batch-00000", first)
    write_batch(tmp_path / "batch-00001", twin)
    report = check(tmp_path, batches=("00000", "00001"))
    (pair,) = report["duplicates"]
    assert pair["runs"] == ["ward_sub-01_task-rest", "ward_sub-77_task-rest"]
    assert (pair["lag"], pair["n_frames"]) == (3, 117)
    assert pair["r"] > 0.999
    assert report["notes"] == [
        "runs of one scan: 1 pair, such as ward_sub-01_task-rest and ward_sub-77_task-rest"
    ]


def test_a_t1w_image_of_two_subjects_is_named(tmp_path: Path) -> None:
    hashes = {"ward_sub-01": "a", "ward_sub-02": "b", "ward_sub-02_ses-2": "b", "ward_sub-03": "a"}
    write_batch(
        tmp_path / "batch-00000", brains(7, range(3)), volumes=["ward_sub-01", "ward_sub-04"], hashes=hashes
    )
    others = ["ward_sub-02", "ward_sub-02_ses-2", "ward_sub-03"]
    write_batch(tmp_path / "batch-00001", brains(7, range(3, 5)), volumes=others, hashes=hashes)
    report = check(tmp_path, batches=("00000", "00001"))
    assert report["same_t1w"] == [["ward_sub-01", "ward_sub-03"]]
    assert report["notes"] == ["one T1w image of two subjects: 1 pair, such as ward_sub-01 and ward_sub-03"]


def test_a_run_is_the_same_under_another_repetition_time(tmp_path: Path) -> None:
    write_batch(tmp_path / "batch-00000", brains(7, range(1)))
    write_batch(tmp_path / "batch-00001", {"ward_sub-77": brain_series(0, 7)}, tr_s=1.0)
    assert check(tmp_path, batches=("00000", "00001"))["n_duplicates"] == 1


def test_of_a_large_cohort_some_runs_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_cohort, "MOST_COMPARED", 2)
    write_batch(tmp_path / "batch-00000", brains(7, range(5)))
    assert check(tmp_path)["runs"]["compared"] == 2


def test_the_command_leaves_no_report_of_a_refused_cohort(tmp_path: Path, check_kill, caplog) -> None:
    write_batch(tmp_path / "f/batch-00000", brains(7, range(3)))
    (tmp_path / "b.json").write_text('["00000"]')
    for networks in (7, 17):
        write_atlas(tmp_path / f"t{networks}", networks)
    words = ["--cohort", "ward", "--features", str(tmp_path / "f"), "--batches", str(tmp_path / "b.json")]

    def arguments(out: Path, networks: int = 7) -> list[str]:
        return [*words, "--templates", str(tmp_path / f"t{networks}"), "--out", str(out / "check.json")]

    check_kill("bhx_prep.features.check_cohort", "write_json", 1, arguments)
    assert json.loads((tmp_path / "calm/check.json").read_text())["order"]["verdict"] == "confirmed"
    assert check_cohort.main(arguments(tmp_path / "refused", 17)) == 1
    assert "not of Schaefer17n100p" in caplog.text
    assert not (tmp_path / "refused/check.json").exists()


def test_features_of_an_earlier_version_are_made_again(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    file = write_batch(tmp_path / "batch-00000", brains(7, range(1))) / "timeseries.parquet"
    table = pq.read_table(file)
    pq.write_table(table.drop_columns(["fingerprint"]), file)
    with pytest.raises(
        DataError, match=r"an earlier version wrote it.*extract the features of this batch again"
    ):
        check(tmp_path)
