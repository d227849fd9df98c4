"""Labels that are codes, or that sites, ages or other columns tell of everybody."""

from __future__ import annotations

import pytest

from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.evaluation import what_tells

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
    found = what_tells.codes(VALUES, of(values))
    assert found.endswith(said)
    assert bool(found) == bool(said)
    assert what_tells.codes(CLASSES, of([0, 1] * 20)) == ""


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
    ],
)
def test_a_label_that_follows_from_a_column_is_found(endpoint, labels, covariate, cells, told):
    assert what_tells.follows(endpoint, of(labels), covariate, of(map(str, cells))) is told


def test_values_of_another_scale_are_named():
    own = of(range(80, 120))
    assert what_tells.other_scale(own, of(range(90, 130))) == ""
    assert what_tells.other_scale(own, of(range(9))) == ""  # too few to say
    said = what_tells.other_scale(own, of([value / 10 for value in range(80, 120)]))
    assert said == "its median is 9.95, trained on are 80 to 119: is it the same scale?"
