"""Age, sex and site: what is known is counted, and no few of a measured cohort can be made out."""

from __future__ import annotations

import pytest

from bhx_prep.config.cohorts import CohortSection
from bhx_prep.report import demographics


def section(tmp_path, lines, **settings) -> CohortSection:
    (tmp_path / "participants.tsv").write_text("\n".join("\t".join(line) for line in lines) + "\n")
    return CohortSection(input="fmriprep", root=tmp_path, **settings)


def town(tmp_path, n=40, men=20, **settings):
    rows = [(f"sub-{i:03d}", str(20 + i), "M" if i < men else "F", f"site{i % 2}") for i in range(n)]
    return section(tmp_path, [("participant_id", "Age", "sex", "site"), *rows], **settings)


LABELS = [f"{i:03d}" for i in range(40)]


def test_found_and_included(tmp_path):
    found, included = demographics.of_cohort(town(tmp_path), LABELS, LABELS[:30], synthetic=False)
    assert (found.subjects, found.age) == (40, "39.5 (29.8 to 49.2)")
    assert (found.sex, found.site) == ("F 20, M 20", "site0 20, site1 20")
    assert (included.subjects, included.sex) == (30, "M 20, F 10")


def test_few_who_are_excluded_cannot_be_told_by_the_difference(tmp_path):
    _, included = demographics.of_cohort(town(tmp_path), LABELS, LABELS[1:], synthetic=False)
    assert included.age == included.sex == included.site == "fewer than 5 less: not shown"


def test_small_counts_are_joined_until_they_are_not(tmp_path):
    found, _ = demographics.of_cohort(town(tmp_path, men=3), LABELS, LABELS, synthetic=False)
    assert found.sex == "F or M 40"
    found, _ = demographics.of_cohort(town(tmp_path, men=3), LABELS, LABELS, synthetic=True)
    assert found.sex == "F 37, M 3"


@pytest.mark.parametrize(
    ("counts", "named", "joined"),
    [
        ({"a": 50, "b": 20, "c": 1}, {"a": 50}, {"b", "c"}),
        ({"a": 50, "b": 3, "c": 4}, {"a": 50}, {"b", "c"}),
        ({"a": 50, "b": 2, "c": 2}, {}, {"a", "b", "c"}),
        ({"a": 3, "b": 1}, {}, {"a", "b"}),
        ({"a": 5, "b": 5}, {"a": 5, "b": 5}, set()),
    ],
)
def test_no_small_count_follows_from_the_others(counts, named, joined):
    shown, together = demographics.protected(counts, demographics.FEWEST)
    assert (dict(shown), set(together)) == (named, joined)


def test_ages_of_few_are_not_shown(tmp_path):
    found, _ = demographics.of_cohort(town(tmp_path, n=9), LABELS[:9], LABELS[:9], synthetic=False)
    assert found.age == "not shown"


def test_what_is_unknown_is_counted(tmp_path):
    rows = [(f"sub-{i:03d}", "n/a", "F" if i < 20 else "n/a") for i in range(40)]
    cohort = section(tmp_path, [("participant_id", "age", "gender"), *rows])
    found, _ = demographics.of_cohort(cohort, LABELS, LABELS, synthetic=False)
    assert (found.age, found.sex, found.site) == ("", "F 20, unknown 20", "")


def test_columns_that_the_configuration_names(tmp_path):
    rows = [(f"sub-{i:03d}", str(i), "1") for i in range(40)]
    cohort = section(tmp_path, [("participant_id", "years", "sex"), *rows], columns={"age": "years"})
    found, _ = demographics.of_cohort(cohort, LABELS, LABELS, synthetic=False)
    assert found.age == "19.5 (9.8 to 29.2)"


@pytest.mark.parametrize("text", ["", "participant_id\nsub-000\n", "no ids\there\n1\t2\n", None])
def test_a_table_that_says_nothing_costs_the_page_nothing(tmp_path, text):
    cohort = CohortSection(input="fmriprep", root=tmp_path)
    if text is not None:
        (tmp_path / "participants.tsv").write_text(text)
    assert demographics.of_cohort(cohort, LABELS, LABELS, synthetic=False) == []
