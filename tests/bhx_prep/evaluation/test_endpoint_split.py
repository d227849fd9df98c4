"""Schemes of splits: by site, from a file, tested on other cohorts; scans under two ids; the protocol of Brainmarks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from bhx_model.errors import DataError
from bhx_prep.config.cohorts import TableSettings
from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.evaluation import draw, endpoint_split, people, split_lists
from bhx_prep.ingest import participants

DX = {"cohort": "clinic", "column": "dx", "kind": "binary", "classes": ["control", "patient"]}
SITES = [["north"], ["south"], ["east"]]


def labels_of(n: int, first: int = 0) -> list[str]:
    return [f"{i:03d}" for i in range(first, first + n)]


def cohort(
    folder: Path,
    rows: Mapping[str, Mapping[str, object]],
    name: str = "clinic",
    family: str | None = None,
    **scans: str,
) -> endpoint_split.Cohort:
    """Subjects by label with their cells; `scans` are hashes that several share, by ``s<label>``."""
    names = list(next(iter(rows.values())))
    lines = ["\t".join(["participant_id", *names])]
    lines += ["\t".join([f"sub-{label}", *map(str, row.values())]) for label, row in rows.items()]
    (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    about = people.CohortPeople(name)
    keys = {label: people.keys(about, label, [scans.get(f"s{label}", f"{name} {label}")]) for label in rows}
    table = participants.read(folder / f"{name}.tsv", TableSettings(family=family))
    return endpoint_split.Cohort(name, table, family, {"bold": set(rows), "t1w": set(rows)}, keys)


def people_of(n: int, first: int = 0, **more) -> dict[str, dict[str, object]]:
    """Half patients, at three sites."""
    found: dict[str, dict[str, object]] = {}
    for i, label in enumerate(labels_of(n, first)):
        found[label] = {"dx": ("control", "patient")[i % 2], "site": SITES[i // 2 % 3][0]}
        found[label] |= {name: value(i) for name, value in more.items()}
    return found


def make(spec: dict, own: endpoint_split.Cohort, seed: int = 0, **more) -> dict:
    return endpoint_split.make("dx", EndpointSection(**DX | spec), seed, own, **more)


def parts(split: dict) -> dict[str, str]:
    return {row["subject"]: row["split"] for row in split["rows"]}


def reasons(split: dict) -> dict[str, str]:
    return {row["subject"]: row["reason"] for row in split["excluded"]}


# --- a scan under two ids ---


def test_a_scan_under_two_ids_counts_once_and_both_are_named(tmp_path: Path):
    own = cohort(tmp_path, people_of(40), s003="one", s009="one")
    for seed in range(3):
        split = make({}, own, seed)
        assert "003" in parts(split)
        assert reasons(split)["009"] == "holds the same scan as sub-003, which is kept"
        assert split["same_scan"] == [["003", "009"]]
        assert "sub-003, sub-009" in split["notes"][-1]


def test_a_scan_under_two_ids_with_two_labels_is_excluded(tmp_path: Path):
    own = cohort(tmp_path, people_of(40), s003="one", s008="one")
    split = make({}, own)
    assert not {"003", "008"} & parts(split).keys()
    assert reasons(split)["003"] == "holds the same scan as sub-008, whose label differs: keep one of them"


# --- leave one site out ---


def test_every_site_is_tested_alone_and_relatives_at_other_sites_are_excluded(tmp_path: Path):
    rows = people_of(60, family=lambda i: "f1" if i in (0, 2) else "n/a")
    own = cohort(tmp_path, rows, family="family")
    spec = {"stratify": ["site"], "splits": {"scheme": "leave-one-site-out"}}
    split = make(spec, own, sites=SITES)
    assert {label for label, part in parts(split).items() if part == "test"} == {
        label for label, row in rows.items() if row["site"] == "north"
    }
    assert reasons(split)["002"] == "is of a family of which a member is tested at another site"
    assert Counter(parts(split).values()) == {"test": 20, "train": 29, "val": 10}
    assert split["sites"] == ["north"]
    with pytest.raises(DataError, match="3 sites to leave out, none is number 3"):
        make(spec, own, 3, sites=SITES)


def test_a_site_with_one_usable_subject_is_refused(tmp_path: Path):
    spec = {"splits": {"scheme": "leave-one-site-out", "site": "site"}}
    rows = people_of(40) | {"900": {"dx": "control", "site": "west"}}
    with pytest.raises(DataError, match="1 subjects of site west"):
        make(spec, cohort(tmp_path, rows), sites=[["west"], *SITES])


def test_a_site_that_has_all_of_a_class_cannot_be_left_out(tmp_path: Path):
    spec = {"splits": {"scheme": "leave-one-site-out", "site": "site"}}
    rows = people_of(60)
    rows = {s: row | ({} if row["site"] == "north" else {"dx": "patient"}) for s, row in rows.items()}
    with pytest.raises(
        DataError, match="without site north there are 0 subjects of class 'control' to train on"
    ):
        make(spec, cohort(tmp_path, rows), sites=SITES)


# --- from a file ---


def lists(folder: Path, columns: Mapping[str, Mapping[str, str]], ids: str = "sub"):
    labels = list(next(iter(columns.values())))
    lines = [",".join([ids, *columns]), *(",".join([s, *(c[s] for c in columns.values())]) for s in labels)]
    (folder / "lists.csv").write_text("\n".join(lines) + "\n")
    return split_lists.read(folder / "lists.csv", TableSettings())


def from_file(folder: Path) -> dict:
    return {"splits": {"scheme": "file", "file": str(folder / "lists.csv")}}


def thirds(n: int) -> dict[str, str]:
    return {
        label: ("train", "train", "validation", "test")[i // 2 % 4] for i, label in enumerate(labels_of(n))
    }


def test_a_file_says_who_takes_which_part_and_who_takes_none(tmp_path: Path):
    given = lists(tmp_path, {"age": dict.fromkeys(labels_of(16), "3"), "split": thirds(16)})
    split = make(from_file(tmp_path), cohort(tmp_path, people_of(20)), lists=given)
    assert parts(split)["000"] == "train"
    assert Counter(parts(split).values()) == {"train": 8, "val": 4, "test": 4}
    assert reasons(split)["019"] == "takes no part in 'split' of lists.csv"


@pytest.mark.parametrize(
    ("names", "first"),
    [
        (["1", "0", "10", "2"], "1"),  # no seeds 0 to 3: as the file has them
        (["1", "0", "2"], "0"),
        (["seed-2", "seed-0", "seed-1"], "seed-0"),
        (["late", "early"], "late"),
    ],
)
def test_columns_that_are_called_by_seeds_are_these(tmp_path: Path, names: list[str], first: str):
    given = lists(tmp_path, dict.fromkeys(names, thirds(16)))
    split = make(from_file(tmp_path), cohort(tmp_path, people_of(16)), lists=given)
    assert split["list"] == first


def test_subjects_of_one_class_are_noted(tmp_path: Path):
    alone = dict.fromkeys(labels_of(16), "train") | {"003": "val"} | dict.fromkeys(["000", "006"], "test")
    given = lists(tmp_path, {"split": alone})
    split = make(from_file(tmp_path), cohort(tmp_path, people_of(16)), lists=given)
    assert [note.partition(": ")[2] for note in split["notes"]] == [
        "all 1 validation subjects are of class 'patient': what is chosen on them may be chance",
        "all 2 test subjects are of class 'control': AUROC of the split cannot be told",
    ]
    both = lists(tmp_path, {"split": thirds(16)})
    assert make(from_file(tmp_path), cohort(tmp_path, people_of(16)), lists=both)["notes"] == []


def test_a_file_that_names_unknown_people_is_refused(tmp_path: Path):
    given = lists(tmp_path, {"split": thirds(16) | {"777": "test"}})
    with pytest.raises(DataError, match="names 1 people that cohort clinic does not have"):
        make(from_file(tmp_path), cohort(tmp_path, people_of(16)), lists=given)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({label: "train" for label in labels_of(16) if label != "006"}, "0 usable subjects in val"),
        (dict.fromkeys([*labels_of(2, 6), *labels_of(1, 14)], "train"), "leaves 1 usable subjects in test"),
        ({label: "test" for label in labels_of(16)[1::2]}, "nobody of class 'patient' in train"),
    ],
)
def test_a_file_on_which_nothing_can_be_learned_is_refused(tmp_path: Path, changes: dict, said: str):
    given = lists(tmp_path, {"split": thirds(16) | changes})
    with pytest.raises(DataError, match=said):
        make(from_file(tmp_path), cohort(tmp_path, people_of(16)), lists=given)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "tests sub-006, not its relative sub-000"),
        ({"006": "val"}, "validates on sub-006, not its relative sub-000"),
    ],
)
def test_a_file_that_parts_a_family_is_refused(tmp_path: Path, changes: dict, said: str):
    given = lists(tmp_path, {"split": thirds(16) | changes})
    rows = people_of(16, family=lambda i: "f1" if i in (0, 6) else "n/a")
    with pytest.raises(DataError, match=said):
        make(from_file(tmp_path), cohort(tmp_path, rows, family="family"), lists=given)


def test_the_lists_of_brainmarks_are_read(shared):
    table, columns = split_lists.read(shared("data/phenotype/ABIDE_curated.csv"), TableSettings())
    assert columns == ["split"]
    assert Counter(split_lists.parts(table, "split").values()) == {"train": 578, "val": 124, "test": 124}


# --- other cohorts ---


def test_all_of_another_cohort_are_tested_but_who_is_trained_on(tmp_path: Path):
    own = cohort(tmp_path, people_of(40), s005="one")
    rows = {label: {"diagnosis": 2 - i % 2} for i, label in enumerate(labels_of(10))}
    other = cohort(tmp_path, rows, "ward", s007="one")
    classes = [{"name": "control", "values": [1]}, {"name": "patient", "values": [2]}]
    spec = {"test_on": [{"cohort": "ward", "column": "diagnosis", "classes": classes}]}
    split = make(spec, own, others=[other])
    tested = [row for row in split["rows"] if row["split"] == "test"]
    assert {row["cohort"] for row in tested} == {"ward"}
    assert len(tested) == 9
    assert [row["label"] for row in tested[:2]] == [1, 0]
    assert Counter(row["split"] for row in split["rows"] if "cohort" not in row) == {"train": 30, "val": 10}
    assert {
        "subject": "007",
        "reason": "the same scan is in cohort clinic, which is trained on",
        "cohort": "ward",
    } in split["excluded"]


def test_who_is_in_two_cohorts_that_are_tested_counts_once(tmp_path: Path):
    ward = cohort(tmp_path, people_of(10), "ward", s007="one")
    camp = cohort(tmp_path, people_of(10), "camp", s002="one")
    split = make({"test_on": ["ward", "camp"]}, cohort(tmp_path, people_of(40)), others=[ward, camp])
    tested = Counter(row["cohort"] for row in split["rows"] if row["split"] == "test")
    assert tested == {"ward": 10, "camp": 9}
    why = {
        "subject": "002",
        "reason": "the same scan is in cohort ward, where it is tested",
        "cohort": "camp",
    }
    assert why in split["excluded"]


def test_a_cohort_of_people_who_are_trained_on_is_refused_with_how_many_these_are(tmp_path: Path):
    scans = {f"s{label}": label for label in labels_of(6)}
    own = cohort(tmp_path, people_of(40), **scans)
    other = cohort(tmp_path, people_of(6), "ward", **scans)
    says = "0 subjects of cohort ward have a label and all scans and are not in clinic, as 6 others are"
    with pytest.raises(DataError, match=says):
        make({"test_on": ["ward"]}, own, others=[other])


# --- protocols ---


def test_brainmarks_shares_inner_folds_and_first_metrics(tmp_path: Path):
    split = make({"splits": {"protocol": "brainmarks"}}, cohort(tmp_path, people_of(400)))
    assert Counter(parts(split).values()) == {"train": 280, "val": 60, "test": 60}
    assert (split["inner_folds"], split["refit"]) == (5, True)
    assert split["metrics_first"] == ["balanced_accuracy", "macro_f1"]


@pytest.mark.parametrize(
    "shares", [(0.6, 0.2, 0.2), (0.7, 0.15, 0.15), (0.75, 0.25, 0.0), (14 / 17, 3 / 17, 0.0)]
)
def test_blocks_have_the_shares_and_one_of_the_smallest_part_each(shares):
    blocks = draw.blocks(shares)
    whole = Counter(part for block in blocks for part in block)
    n = sum(whole.values())
    assert [whole[part] for part in draw.PARTS] == pytest.approx([share * n for share in shares])
    assert all(block.count("val") == 1 for block in blocks)


def test_adjustments_of_scores_stand_in_the_split_where_there_are_any(tmp_path: Path):
    own = cohort(tmp_path, people_of(40))
    assert "adjustments" not in make({}, own)
    assert make({"scoring": {"threshold": True}}, own)["adjustments"] == ["threshold"]
