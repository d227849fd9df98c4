from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest
from endpoint_splits import split_endpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from settings_files import settings_file

from bhx_model import contract
from bhx_model.errors import DataError
from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.evaluation import guards, splits
from bhx_prep.ingest import participants

BINARY = {"cohort": "clinic", "column": "diagnosis", "kind": "binary", "classes": ["control", "patient"]}
KEPT = [f"base/{i}" for i in range(40)]  # so many that not all of them are held out
LABELS = st.from_regex(r"[A-Za-z0-9]{1,6}", fullmatch=True)


# --- pretraining ---


@settings(max_examples=50)
@given(st.sets(LABELS, min_size=1, max_size=30), st.sets(LABELS, max_size=30), st.integers(0, 9))
def test_new_subjects_move_none(old: set[str], new: set[str], seed: int) -> None:
    before, after = (
        splits.split_pretraining([f"town/{s}" for s in labels] + KEPT, 0.3, seed)
        for labels in (old, old | new)
    )
    assert set(before["train"]) <= set(after["train"])
    assert set(before["holdout"]) <= set(after["holdout"])


def test_share_is_kept_and_seeds_differ() -> None:
    subjects = [f"town/{i}" for i in range(4000)]
    first, second = splits.split_pretraining(subjects, 0.1, 0), splits.split_pretraining(subjects, 0.1, 1)
    assert 330 < len(first["holdout"]) < 470
    assert sorted(first["train"] + first["holdout"]) == sorted(subjects)
    assert first != second
    assert splits.split_pretraining(reversed(subjects), 0.1, 0) == first
    assert splits.split_pretraining(subjects, 0.0, 0)["holdout"] == []


def test_the_hash_is_that_of_this_commit() -> None:
    # another hash would move subjects between training and holdout of studies that run
    assert splits.split_pretraining([f"town/{i}" for i in range(20)], 0.2, 0)["holdout"] == [
        "town/11",
        "town/17",
        "town/18",
        "town/2",
        "town/4",
        "town/6",
    ]


def test_no_subject_left_to_train_on_is_refused() -> None:
    with pytest.raises(DataError, match="leaves none of 0 subjects"):
        splits.split_pretraining([], 0.1, 0)


# --- endpoints ---


def table(tmp_path: Path, rows: list[dict]) -> Path:
    path = tmp_path / "participants.tsv"
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["\t".join(names), *("\t".join(str(row.get(name, "n/a")) for name in names) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def make(
    tmp_path: Path, rows: list[dict], spec: dict, seed: int = 0, family: str | None = None, **scans: set[str]
) -> dict:
    path = table(tmp_path, rows)
    everyone = {row["participant_id"].removeprefix("sub-") for row in rows}
    bold, t1w = scans.get("bold", everyone), scans.get("t1w", everyone)
    return split_endpoint(
        "diagnosis", EndpointSection(**spec), seed, participants.read(path), family, bold, t1w
    )


@pytest.mark.parametrize(
    ("modalities", "n"), [(("bold", "t1w"), 30), (("bold",), 40), (("t1w",), 40), ((), 50)]
)
def test_a_subject_needs_only_what_some_row_reads(tmp_path: Path, modalities: tuple, n: int) -> None:
    path = table(tmp_path, subjects(50, diagnosis=lambda i: ("control", "patient")[i % 2]))
    bold, t1w = {f"{i:03d}" for i in range(40)}, {f"{i:03d}" for i in range(10, 50)}
    spec = EndpointSection(**BINARY)
    split = split_endpoint("d", spec, 0, participants.read(path), None, bold, t1w, modalities)
    assert len(split["rows"]) == n
    assert split["modalities"] == sorted(modalities)
    reasons = Counter(one["reason"] for one in split["excluded"])
    assert sum(reasons.values()) == 50 - n
    assert reasons["has no usable T1 in the shards"] == ("t1w" in modalities) * 10
    assert reasons["has no usable BOLD run in the shards"] == ("bold" in modalities) * 10


def subjects(n: int, **columns) -> list[dict]:
    return [{"participant_id": f"sub-{i:03d}"} | {k: f(i) for k, f in columns.items()} for i in range(n)]


def tally(split: dict, value) -> Counter:
    return Counter((value(row), row["split"]) for row in split["rows"])


def test_a_share_of_the_pretraining_is_by_subject_and_nested():
    subjects, families = [f"town/{i}" for i in range(1000)], {"town/1": "a", "town/2": "a"}
    whole = splits.split_pretraining(subjects, 0.1, 0, families)
    before: set[str] = set()
    for share in (0.01, 0.1, 0.5, 1.0):
        split = splits.split_pretraining(subjects, 0.1, 0, families, share=share)
        assert split["holdout"] == whole["holdout"]
        assert before <= set(split["train"]) <= set(whole["train"])
        assert len(split["train"]) == pytest.approx(share * len(whole["train"]), abs=35)
        assert ("town/1" in split["train"]) == ("town/2" in split["train"])
        before = set(split["train"])
        assert sorted([*split["train"], *split["holdout"], *split.get("left_out", ())]) == sorted(subjects)
    assert splits.split_pretraining(subjects, 0.1, 0, families, share=1) == whole
    with pytest.raises(
        DataError, match=r"a share of 1e-06 leaves none of \d+ subjects to train on: raise it"
    ):
        splits.split_pretraining(subjects, 0.1, 0, share=1e-6)


def test_every_class_and_site_is_split_alike(tmp_path: Path) -> None:
    rows = subjects(
        100, diagnosis=lambda i: "patient" if i % 4 == 0 else "control", site=lambda i: f"s{i // 4 % 5}"
    )
    split = make(tmp_path, rows, BINARY | {"stratify": ["site"]})
    count = tally(split, lambda row: row["label"])
    assert count == {
        (0, "train"): 45,
        (0, "val"): 15,
        (0, "test"): 15,
        (1, "train"): 15,
        (1, "val"): 5,
        (1, "test"): 5,
    }
    sites = {row["participant_id"].removeprefix("sub-"): row["site"] for row in rows}
    count = tally(split, lambda row: sites[row["subject"]])
    assert all(count[f"s{s}", "train"] == 12 and count[f"s{s}", "test"] == 4 for s in range(5))


@settings(max_examples=40)
@given(n=st.integers(10, 60), seed=st.integers(0, 99), sites=st.integers(1, 9))
def test_fractions_hold_for_any_number_of_subjects(tmp_path_factory, n: int, seed: int, sites: int) -> None:
    folder = tmp_path_factory.mktemp("t")
    rows = subjects(n, diagnosis=lambda i: ("control", "patient")[i % 2], site=lambda i: str(i % sites))
    split = make(folder, rows, BINARY | {"stratify": ["site"]}, seed)
    count = tally(split, lambda row: row["label"])
    for label in (0, 1):
        total = sum(count[label, name] for name in ("train", "val", "test"))
        for name, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
            assert abs(count[label, name] - share * total) < 2
            assert count[label, name] > 0


def test_seeds_differ_even_where_every_stratum_is_one_subject(tmp_path: Path) -> None:
    rows = subjects(10, diagnosis=lambda i: ("control", "patient")[i % 2], site=str)
    found = {
        json.dumps(make(tmp_path, rows, BINARY | {"stratify": ["site"]}, seed)["rows"]) for seed in range(5)
    }
    assert len(found) > 1
    assert make(tmp_path, rows, BINARY, 3) == make(tmp_path, rows[::-1], BINARY, 3)


def test_regression_is_split_within_quantiles(tmp_path: Path) -> None:
    rows = subjects(60, score=lambda i: i**2 / 7)
    split = make(tmp_path, rows, {"cohort": "clinic", "column": "score", "kind": "regression"})
    assert all(isinstance(row["label"], float) for row in split["rows"])
    bins = tally(split, lambda row: int(row["subject"]) // 12)
    for number in range(5):
        assert bins[number, "val"] in (2, 3)
        assert bins[number, "test"] in (2, 3)


def test_every_subject_is_labelled_or_excluded_with_a_reason(tmp_path: Path) -> None:
    rows = subjects(20, diagnosis=lambda i: ("control", "patient")[i % 2])
    rows[0]["diagnosis"] = "n/a"
    rows[1]["diagnosis"] = "other"
    everyone = {f"{i:03d}" for i in range(20)}
    split = make(
        tmp_path,
        rows,
        BINARY,
        bold=everyone - {"002", "003"} | {"900"},
        t1w=everyone - {"003", "004"} | {"900"},
    )
    reasons = {row["subject"]: row["reason"] for row in split["excluded"]}
    assert set(reasons) == {"000", "001", "002", "003", "004", "900"}
    assert "is unknown" in reasons["000"]
    assert reasons["001"] == "diagnosis is 'other', none of the classes' values control, patient"
    assert reasons["002"] == "has no usable BOLD run in the shards"
    assert "no usable data" in reasons["003"]
    assert reasons["004"] == "has no usable T1 in the shards"
    assert "no row in participants.tsv" in reasons["900"]
    assert {row["subject"] for row in split["rows"]} == everyone - set(reasons)


@pytest.mark.parametrize(
    ("rows", "spec", "says"),
    [
        (
            subjects(12, diagnosis=lambda i: "patient" if i < 4 else "control"),
            BINARY,
            "4 subjects of class 'patient'",
        ),
        (subjects(12, sex=str), BINARY, "no column 'diagnosis'"),
        (
            subjects(12, diagnosis=lambda i: ("control", "patient")[i % 2]),
            BINARY | {"stratify": ["site"]},
            "'site'",
        ),
        (
            subjects(4, score=float),
            {"cohort": "c", "column": "score", "kind": "regression"},
            "4 subjects with a label",
        ),
        (
            subjects(8, score=float),
            {"cohort": "c", "column": "score", "kind": "regression"},
            "8 subjects with a label and the scans, 10 are needed",
        ),
        (
            subjects(12, score=lambda i: 50),
            {"cohort": "c", "column": "score", "kind": "regression"},
            "its label is 50 for all 12 subjects",
        ),
    ],
)
def test_too_few_subjects_and_missing_columns_are_refused(tmp_path: Path, rows, spec, says: str) -> None:
    with pytest.raises(DataError, match=says):
        make(tmp_path, rows, spec)


def test_no_code_for_unknown_is_a_label(tmp_path: Path) -> None:
    codes = ("-9999", "-9999.0", "-999", "n/a", "", "NaN", "null", "#", ".", "pending", "-9999,0")
    rows = subjects(40, score=lambda i: codes[i] if i < len(codes) else f"{90 + i}.5")
    split = make(tmp_path, rows, {"cohort": "clinic", "column": "score", "kind": "regression"})
    assert {row["label"] for row in split["rows"]} == {90.5 + i for i in range(len(codes), 40)}
    assert len(split["excluded"]) == len(codes)
    assert "score: read as unknown are" in split["notes"][0]


def test_no_code_for_unknown_is_an_iq_of_abide(shared) -> None:
    path = shared("data/abide_cc200/participants.csv")
    spec = EndpointSection(cohort="a", column="fiq", kind="regression", stratify=("site",))
    everyone = set(participants.read(path).rows)
    split = split_endpoint("fiq", spec, 0, participants.read(path), None, everyone, everyone)
    assert (len(everyone), len(split["rows"])) == (835, 802)
    assert all(40 < row["label"] < 160 for row in split["rows"])
    assert split["notes"] == ["table read with an assumption: fiq: read as unknown are '-9999.0' (33 x)"]


def test_a_value_that_a_class_names_is_no_code(tmp_path: Path) -> None:
    rows = subjects(20, diagnosis=lambda i: ("NA", "-999")[i % 2])
    split = make(tmp_path, rows, BINARY | {"classes": ["NA", -999]})
    assert Counter(row["label"] for row in split["rows"]) == {0: 10, 1: 10}
    assert split["notes"] == []


def test_a_value_far_from_all_others_is_kept_and_noted(tmp_path: Path) -> None:
    rows = subjects(30, score=lambda i: 999 if i % 10 == 0 else 20 + i)
    split = make(tmp_path, rows, {"cohort": "clinic", "column": "score", "kind": "regression"})
    assert len(split["rows"]) == 30
    assert split["notes"] == [
        "table read with an assumption: score: kept, though far from all others, is 999 (3 x)"
    ]


# --- families ---


def test_families_are_held_out_together_over_cohorts() -> None:
    subjects = [f"{cohort}/{i}" for cohort in ("twins", "town") for i in range(600)]
    families = {s: s.split("/")[1] for s in subjects}
    split = splits.split_pretraining(subjects, 0.2, 0, families)
    held_out = {families[s] for s in split["holdout"]}
    assert held_out.isdisjoint(families[s] for s in split["train"])
    assert 180 < len(split["holdout"]) < 300
    alone = splits.split_pretraining(subjects, 0.2, 0)
    some = splits.split_pretraining(subjects, 0.2, 0, {"twins/1": "a", "town/1": "a"})
    assert set(alone["holdout"]) ^ set(some["holdout"]) <= {"twins/1", "town/1"}


@settings(max_examples=30)
@given(seed=st.integers(0, 99), size=st.integers(1, 4), mixed=st.booleans())
def test_families_are_in_one_split_of_an_endpoint(
    tmp_path_factory, seed: int, size: int, mixed: bool
) -> None:
    rows = subjects(
        120,
        diagnosis=lambda i: ("control", "patient")[(i if mixed else i // size) % 3 == 0],
        site=lambda i: str(i % 3),
        family=lambda i: "n/a" if i % 10 == 9 else f"F{i // size}",
    )
    split = make(tmp_path_factory.mktemp("t"), rows, BINARY | {"stratify": ["site"]}, seed, "family")
    family = {row["participant_id"].removeprefix("sub-"): row["family"] for row in rows}
    parts: dict[str, set] = {}
    for row in split["rows"]:
        if family[row["subject"]] != "n/a":
            parts.setdefault(family[row["subject"]], set()).add(row["split"])
    assert all(len(found) == 1 for found in parts.values())
    count = Counter(row["split"] for row in split["rows"])
    assert abs(count["train"] - 72) < 15
    assert {(row["label"], row["split"]) for row in split["rows"]} == {
        (label, part) for label in (0, 1) for part in ("train", "val", "test")
    }


def test_families_of_a_regression_and_too_few_of_them(tmp_path: Path) -> None:
    score = {"cohort": "clinic", "column": "score", "kind": "regression"}
    rows = subjects(50, score=float, family=lambda i: i // 2)
    split = make(tmp_path, rows, score, family="family")
    parts = {row["subject"]: row["split"] for row in split["rows"]}
    assert all(parts[f"{2 * i:03d}"] == parts[f"{2 * i + 1:03d}"] for i in range(25))
    assert Counter(parts.values()) == {"train": 30, "val": 10, "test": 10}
    with pytest.raises(DataError, match="4 subjects with a label and the scans of different families"):
        make(tmp_path, rows[:8], score, family="family")
    with pytest.raises(DataError, match="no column 'fam'; did you mean 'family'"):
        make(tmp_path, rows, score, family="fam")


def test_splits_without_families_are_those_of_earlier_versions(tmp_path: Path) -> None:
    rows = subjects(30, diagnosis=lambda i: ("control", "patient")[i % 2], site=lambda i: str(i % 3))
    split = make(tmp_path, rows, BINARY | {"stratify": ["site"]})
    test = [row["subject"] for row in split["rows"] if row["split"] == "test"]
    assert test == ["004", "007", "009", "018", "020", "029"]


# --- command line ---


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A cohort of which only the lists are there: splits read nothing else."""
    shards: dict[str, list] = {}
    for modality in contract.MODALITIES:
        raw = contract.canonical_json({"subject": [f"{i:03d}" for i in range(20)]})
        (tmp_path / f"{modality}.json").write_bytes(raw)
        entry = {
            "file": f"{modality}.tar",
            "list": f"{modality}.json",
            "list_sha256": hashlib.sha256(raw).hexdigest(),
        }
        shards[modality] = [entry]
    index = {
        "contract": contract.CONTRACT_VERSION,
        "synthetic": True,
        "t1w_shape": [2, 2, 2],
        "cohort": "clinic",
        "atlas": "A",
        "roi_names": ["x"],
        "shards": shards,
    }
    index["roi_sha256"] = contract.roi_sha256("A", ["x"])
    (tmp_path / "index.json").write_text(json.dumps(index))
    return tmp_path / "index.json"


def test_command_line(index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out" / "pretrain.json"
    args = ["pretrain", "--shards", str(index), "--holdout", "0.2", "--seed", "0", "--out", str(out)]
    assert splits.main(args) == 0
    split = json.loads(out.read_text())
    assert len(split["train"]) + len(split["holdout"]) == 20
    assert split["train"][0].startswith("clinic/")
    source = table(tmp_path, subjects(20, diagnosis=lambda i: ("control", "patient")[i % 2]))
    args = [
        "endpoint",
        "--name",
        "diagnosis",
        "--seed",
        "1",
        "--participants",
        str(source),
        "--shards",
        str(index),
    ]
    assert splits.main([*args, "--endpoint", settings_file(BINARY), "--out", str(out)]) == 0
    split = json.loads(out.read_text())
    keys = {"endpoint", "cohort", "kind", "classes", "seed", "rows", "excluded", "notes", "modalities"}
    assert set(split) >= keys
    assert split["modalities"] == ["bold", "t1w"]
    assert len(split["rows"]) == 20
    other = settings_file(BINARY | {"cohort": "town"})
    assert splits.main([*args, "--endpoint", other, "--out", str(out)]) == 1
    assert "is of cohort clinic, endpoint diagnosis of town" in capsys.readouterr().err


def test_families_on_the_command_line(index: Path, tmp_path: Path) -> None:
    source = table(tmp_path, subjects(20, family=lambda i: i // 2))
    tables = settings_file({"clinic": {"participants": str(source), "table": {"family": "family"}}})
    out = tmp_path / "pretrain.json"
    args = ["pretrain", "--shards", str(index), "--holdout", "0.3", "--seed", "0", "--out", str(out)]
    assert splits.main([*args, "--families", tables]) == 0
    held_out = json.loads(out.read_text())["holdout"]
    assert 0 < len(held_out) < 20
    assert all(f"clinic/{int(s.split('/')[1]) ^ 1:03d}" in held_out for s in held_out)


def test_who_was_trained_on_before_counts_as_trained_on(index: Path, tmp_path: Path) -> None:
    """Those of the weights that a training starts from; where they are not known, nobody is known."""
    out, old = tmp_path / "pretrain.json", tmp_path / "old/function"
    old.mkdir(parents=True)
    (old / "model.safetensors").touch()
    args = ["pretrain", "--shards", str(index), "--holdout", "0", "--seed", "0", "--out", str(out)]
    assert splits.main(args) == 0
    alone = json.loads(out.read_text())
    for card, expected in (
        (
            {"people": {"subject": ["f" * 32], "scan": ["e" * 32]}},
            {"subject": ["f" * 32], "scan": ["e" * 32]},
        ),
        ({}, None),
    ):
        (old / "run.json").write_text(json.dumps(card))
        assert splits.main([*args, "--init-from", json.dumps({"function": str(old.parent)})]) == 0
        people = json.loads(out.read_text())["people"]
        if expected is None:
            assert people == {}
            assert guards.read_card(out) is None
        else:
            kinds = alone["people"].keys() | expected.keys()
            assert people == {k: sorted({*alone["people"].get(k, ()), *expected.get(k, ())}) for k in kinds}


def test_missing_values_on_the_command_line(index: Path, tmp_path: Path) -> None:
    source = table(tmp_path, subjects(20, score=lambda i: 999 if i == 3 else i))
    spec = settings_file({"cohort": "clinic", "column": "score", "kind": "regression"})
    out = tmp_path / "seed-0.json"
    args = [
        "endpoint",
        "--name",
        "score",
        "--seed",
        "0",
        "--participants",
        str(source),
        "--shards",
        str(index),
    ]
    args += ["--endpoint", spec, "--out", str(out), "--table", settings_file({"missing": ["999.0"]})]
    assert splits.main(args) == 0
    split = json.loads(out.read_text())
    assert {row["label"] for row in split["rows"]} == set(range(20)) - {3}
    assert split["excluded"] == [{"subject": "003", "reason": "score is unknown (999) in participants.tsv"}]
