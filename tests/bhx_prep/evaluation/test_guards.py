"""Test subjects in the pretraining of the weights that are scored: found whatever they are called, and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bhx_model import contract
from bhx_model.errors import DataError
from bhx_prep.evaluation import guards, people
from bhx_prep.evaluation.people import CohortPeople

PRETRAINED = people.listed(
    {
        "ukb/7": people.keys(
            CohortPeople("ukb", folder="data/ukb", families={"7": "12"}), "7", ["scan of 7"]
        ),
        "abide/0050642": people.keys(CohortPeople("abide", layout="abide1"), "0050642", ["scan of 0050642"]),
    }
)


@pytest.mark.parametrize(
    ("about", "label", "scan", "shared"),
    [
        (CohortPeople("ukb"), "7", "other", "the same subject"),
        (CohortPeople("other"), "1", "scan of 7", "the same scan"),
        (CohortPeople("other", folder="data/ukb"), "7", "other", "the same subject's folder"),
        (CohortPeople("other", families={"1": "12"}), "1", "other", "the same family"),
        (CohortPeople("other", layout="abide1"), "0050642", "other", "the same subject of the data set"),
        (CohortPeople("other"), "0050642", "other", "the same id"),
        (CohortPeople("other", families={"7": "13"}), "7", "other", None),  # a 7 is someone else elsewhere
        (CohortPeople("other", layout="abide2"), "29006", "other", None),
    ],
)
def test_who_is_in_a_pretraining(about: CohortPeople, label: str, scan: str, shared: str | None):
    person = f"{about.cohort}/{label}"
    split = {"tested": {person: sorted(people.keys(about, label, [scan]))}}
    assert guards.overlap(split, PRETRAINED) == ({} if shared is None else {person: shared})


def split_file(folder: Path, *labels: str, seed: int = 0) -> Path:
    tested = {f"ukb/{label}": sorted(people.keys(CohortPeople("ukb"), label)) for label in labels}
    path = folder / f"seed-{seed}.json"
    path.write_text(json.dumps({"endpoint": "dx", "seed": seed, "tested": tested}))
    return path


def run(folder: Path, card: dict | None, *words: str) -> int:
    if card is not None:
        (folder / "pretrain.json").write_text(json.dumps(card))
    splits = [str(split_file(folder, "1", "7")), str(split_file(folder, "1", "2", seed=1))]
    given = ["--experiment", "mine", "--splits", *splits, "--pretraining", str(folder / "pretrain.json")]
    return guards.main([*given, "--out", str(folder / "overlap.json"), *words])


def test_an_overlap_is_refused_with_how_many_and_how_to_go_on(tmp_path: Path, capsys):
    assert run(tmp_path, {"people": PRETRAINED}) == 1
    said = capsys.readouterr().err
    assert "1 of 2 test subjects of dx are in the pretraining of mine, e.g. ukb/7 (the same subject)" in said
    assert "exclude_test_of" in said
    assert not (tmp_path / "overlap.json").exists()


def test_an_overlap_that_is_allowed_is_counted_by_split(tmp_path: Path):
    assert run(tmp_path, {"people": PRETRAINED}, "--overlap", "mark") == 0
    found = json.loads((tmp_path / "overlap.json").read_text())
    assert found["known"] is True
    assert found["seeds"]["0"] == {"n_tested": 2, "n_overlap": 1, "shared": {"the same subject": 1}}
    assert found["seeds"]["1"]["n_overlap"] == 0


def test_only_scored_subjects_are_compared(tmp_path: Path, capsys):
    """Rows that are chosen on test subjects are scored on validation subjects."""
    split = {"endpoint": "dx", "seed": 0, "tested": {}, "validated": {}}
    for key, label in (("tested", "1"), ("validated", "7")):
        split[key] = {f"ukb/{label}": sorted(people.keys(CohortPeople("ukb"), label))}
    assert guards.check("mine", [split], PRETRAINED, "refuse")["seeds"]["0"]["n_overlap"] == 0
    with pytest.raises(
        DataError, match="1 of 1 validation subjects of dx, which are scored, are in the pretraining"
    ):
        guards.check("mine", [split], PRETRAINED, "refuse", ["val"])
    found = guards.check("mine", [split], PRETRAINED, "mark", ["test", "val"])
    assert {key: found[key]["0"]["n_overlap"] for key in ("seeds", "seeds_of_validation")} == {
        "seeds": 0,
        "seeds_of_validation": 1,
    }
    assert run(tmp_path, {"people": PRETRAINED}, "--scored", "val") == 1  # of an earlier version
    assert "does not say who its validation subjects are" in capsys.readouterr().err


@pytest.mark.parametrize(
    "card",
    [
        {}, {"people": None}, {"people": {"subject": []}}, {"people": "many"}, {"people": {"subject": 835}},
        {"people": {"names": ["one"]}}, {"people": {"family": ["0" * 32]}},
        # names, hashes of another length or spelling, and one of them among good ones: nobody would be found
        {"people": {"subject": ["abide1/0050002"]}}, {"people": {"scan": ["0" * 64]}}, {"people": {"scan": ["A" * 32]}},
        {"people": {"subject": ["0" * 32, 7]}}, {"people": {"subject": ["0" * 32], "scan": "0" * 32}},
    ],
)  # fmt: skip
def test_a_card_that_lists_no_people_is_refused_unless_it_may_be_unknown(tmp_path: Path, capsys, card: dict):
    assert run(tmp_path, card) == 1
    assert "the card of the weights of mine lists no people" in capsys.readouterr().err
    assert run(tmp_path, card, "--overlap", "mark") == 0
    assert json.loads((tmp_path / "overlap.json").read_text())["known"] is False


def test_the_card_of_an_exported_folder_is_read(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"people": PRETRAINED}))
    own = {kind: values for kind, values in PRETRAINED.items() if kind not in contract.PEOPLE_OF_STUDY}
    assert guards.read_card(tmp_path) == own  # what means nothing outside of a study is not compared


def test_a_split_of_an_earlier_version_says_so():
    with pytest.raises(DataError, match="split again"):
        guards.overlap({"rows": []}, PRETRAINED)


@pytest.mark.parametrize(
    ("label", "expected"),
    [("0050642", True), ("NDARINV003RTV85", True), ("100307", True), ("001", False), ("control12", False),
     ("000123", False), ("pilot", False)],
)  # fmt: skip
def test_labels_that_are_given_once(label: str, expected: bool):
    assert people.is_distinctive(label) is expected
