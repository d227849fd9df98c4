"""Labels that are codes, or that sites, ages or other columns tell of everybody."""

from __future__ import annotations

import pytest

from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.evaluation import label_leakage

CLASSES = EndpointSection.model_validate(
    {"cohort": "a", "column": "dx", "kind": "binary", "classes": ["control", "patient"]}
)
VALUES = EndpointSection.model_validate({"cohort": "a", "column": "score", "kind": "regression"})
PEOPLE = [f"{i:02d}" for i in range(40)]


def of(values) -> dict:
    return dict(zip(PEOPLE, values, strict=False))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.0, 2.0] * 20, "all 1, 2: if these are codes, use `kind: binary`"),
        ([1, 2, 3, 4] * 10, "all 1, 2, 3, 4: if these are codes, use `kind: multiclass`"),
        (range(40), ""),
        ([0.5, 1.5] * 20, ""),
        ([1.0, 2.0], ""),  # too few to say
    ],
)
def test_values_that_are_likely_codes_are_named(values, said):
    found = label_leakage.codes(VALUES, of(values))
    assert found.endswith(said)
    assert bool(found) == bool(said)
    assert label_leakage.codes(CLASSES, of([0, 1] * 20)) == ""


@pytest.mark.parametrize(
    ("endpoint", "labels", "covariate", "cells", "told"),
    [
        (CLASSES, [0, 1] * 20, "site", ["NYU", "PITT"] * 20, True),
        (CLASSES, [0, 1] * 20, "site", ["NYU", "NYU", "PITT", "PITT"] * 10, False),
        (CLASSES, [0, 1] * 20, "site", PEOPLE, False),  # a person
        (CLASSES, [0, 0, 1, 1] * 10, "site", [i // 2 for i in range(40)], False),  # a family
        (CLASSES, [0] * 20 + [1] * 20, "age", range(40), True),
        (CLASSES, [0, 1] * 20, "age", range(40), False),
        (VALUES, [12 * i for i in range(40)], "age", range(40), True),
        (VALUES, [i % 7 for i in range(40)], "age", range(40), False),
        (VALUES, range(40), "age", ["n"] * 40, False),
        (VALUES, range(40), "age", [30] * 40, False),
        (CLASSES, [0] * 20 + [1] * 20, "scan_year", ["2011-05-03"] * 20 + ["03.02.2012"] * 20, True),
        (CLASSES, [0, 1] * 20, "scan_year", ["2011-05-03"] * 20 + ["2012-05-03"] * 20, False),
        (CLASSES, [0, 1] * 20, "site", ["NYU", "PITT"] * 19 + ["NYU", "NYU"], False),  # nearly
    ],
)
def test_a_label_that_follows_from_a_column_is_found(endpoint, labels, covariate, cells, told):
    assert label_leakage.follows(endpoint, of(labels), covariate, of(map(str, cells))) is told


@pytest.mark.parametrize(
    ("endpoint", "labels", "cells", "said"),
    [
        (CLASSES, [0, 1] * 20, ["NYU", "PITT"] * 19 + ["NYU", "NYU"], "of 39 of 40 people"),
        (CLASSES, [0, 1] * 20, ["NYU", "PITT"] * 20, ""),  # of all
        (CLASSES, [0, 1] * 20, ["NYU", "PITT"] * 17 + ["NYU"] * 6, ""),  # 37 of 40
        (CLASSES, [0] * 39 + [1], ["NYU", "PITT"] * 20, ""),  # so many are of one class anyway
        (CLASSES, [0, 1] * 20, PEOPLE, ""),
        (CLASSES, [0] * 40, ["NYU", "PITT"] * 20, ""),
        (VALUES, range(40), ["NYU", "PITT"] * 20, ""),
    ],
)
def test_a_class_that_nearly_follows_from_sites_is_named(endpoint, labels, cells, said):
    assert label_leakage.nearly_follows(endpoint, of(labels), of(map(str, cells))) == said


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            [20190101.0 + i for i in range(28)],
            "values such as 20190101 look like dates: name what is to be predicted",
        ),
        (  # days since 1900, as spreadsheets count
            [43500.0 + 9 * i for i in range(40)],
            "values such as 43500 look like dates: name what is to be predicted",
        ),
        (  # seconds since 1970
            [1543500000.0 + 86400 * i for i in range(40)],
            "values such as 1543500000 look like dates: name what is to be predicted",
        ),
        (  # day, month, year; month, day, year
            [1011960.0 + 1_000_000 * (i % 9) + i for i in range(40)],
            "values such as 1011960 look like dates: name what is to be predicted",
        ),
        (
            [12251960.0 + i for i in range(40)],
            "values such as 12251960 look like dates: name what is to be predicted",
        ),
        ([43500.0 + 9000 * i for i in range(40)], ""),
        ([20190101.0 + i for i in range(40)], ""),  # January has no 40 days
        ([20190101.5 + i for i in range(28)], ""),
        (range(28), ""),
    ],
)
def test_dates_as_numbers_are_named(values, said):
    assert label_leakage.dates(VALUES, of(values)) == said


@pytest.mark.parametrize(
    ("endpoint", "values", "expected"),
    [
        (VALUES, range(40), True),  # the number of the subject
        (VALUES, range(20, 60), False),  # as ages in ascending order
        (VALUES, [i % 7 for i in range(40)], False),
        (CLASSES, [0] * 20 + [1] * 20, False),  # controls are often numbered first
    ],
)
def test_a_number_of_the_subjects_is_found(endpoint, values, expected):
    assert label_leakage.counts_subjects(endpoint, of(values)) is expected


def test_values_of_another_scale_are_named():
    own = of(range(80, 120))
    assert label_leakage.other_scale(own, of(range(90, 130))) == ""
    assert label_leakage.other_scale(own, of(range(9))) == ""  # too few to say
    said = label_leakage.other_scale(own, of([value / 10 for value in range(80, 120)]))
    assert said == "its median is 9.95, trained on are 80 to 119: is it the same scale?"
