"""What cells of tables mean: numbers, codes for unknown, values far from all others."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhx_prep.ingest.cell_values import MissingValues, far_values, listed, number_of, numbers_of, same


@pytest.mark.parametrize(
    "cell",
    ["-9999", "-9999.0", "-9999.00", "-9.999e3", "\N{MINUS SIGN}9999", "-9999,0", "-999", "", "n/a", "N/A", "NA", "na",
     "NaN", "nan", "NULL", "null", "<NA>", "#", ".", "#N/A"],
)  # fmt: skip
def test_codes_for_unknown(cell):
    assert cell in MissingValues()


@pytest.mark.parametrize(
    ("cell", "size"),
    [("1e308", "large"), ("-1.7e308", "large"), ("1e400", "large"), ("9" * 400, "large"), ("1e31", "large"),
     ("5e-324", "small"), ("1e-310", "small"), ("-1e-31", "small")],
)  # fmt: skip
def test_numbers_that_cannot_be_computed_with_are_refused(cell: str, size: str):
    numbers, refused, _ = numbers_of({"a": cell, "b": "1e30", "c": "-1e-30", "d": "0", "e": "inf"}, "iq")
    assert numbers == {"b": 1e30, "c": -1e-30, "d": 0.0}
    assert f"too {size} to compute with" in refused["a"]
    assert refused["e"] == "iq is 'inf', no number"


@pytest.mark.parametrize(
    "cell", ["none", "None", "pending", "0", "-9", "9999", "999", "-99990", "-", "nation"]
)
def test_what_is_no_code_unless_it_is_named(cell):
    assert cell not in MissingValues()
    assert cell in MissingValues((cell,))
    assert "" in MissingValues((cell,))
    assert "-9999" not in MissingValues((cell,))
    assert "N/A" in MissingValues((cell, "n/a"))


@pytest.mark.parametrize("text", ["1_000", "nan", "inf", "1e999", "0x1", "", "1,5", "12 years", ">89"])
def test_what_is_no_number(text):
    assert number_of(text) is None


def test_decimal_commas():
    assert numbers_of({"a": "1,5", "b": "2", "c": "1,250"}, "x") == (
        {"a": 1.5, "b": 2.0, "c": 1.25},
        {},
        True,
    )
    assert numbers_of({"a": "0,125"}, "x") == ({"a": 0.125}, {}, True)
    for cells in ({"a": "1,250"}, {"a": "1,250", "b": "2,000,000"}, {"a": "1,5", "b": "1.5"}):
        numbers, refused, commas = numbers_of(cells, "x")
        assert not commas
        assert "a" in refused
        assert "a" not in numbers


@given(st.lists(st.integers(-50, 50), min_size=10), st.sampled_from([99999.0, -9999.0, 888888.0]))
def test_a_code_among_values_is_found(values, code):
    if len(set(values)) > 4:
        assert (code, 2) in far_values([*values, code, code])


def test_values_of_people_are_not_far():
    draw = random.Random(0)
    assert far_values([draw.gauss(100, 15) for _ in range(5000)]) == []
    assert far_values([round(draw.lognormvariate(0, 0.5), 2) for _ in range(5000)]) == []
    assert far_values([0.0] * 900 + [float(i % 25) for i in range(100)]) == []
    assert far_values([float(i % 5) for i in range(50)] + [-9.0] * 5) == [(-9.0, 5)]
    assert far_values([float(i - 2) for i in range(5)] * 5) == []
    many = [100 + i % 20 for i in range(60)] + [9999] * 40
    assert far_values(many) == [(9999, 40)]


def test_cells_that_say_the_same():
    assert same(["30", "30.0"])
    assert same(["a", "a"])
    assert not same(["30", "31"])
    assert not same(["a", "A"])


def test_names_in_a_sentence():
    assert listed(["a", "b"]) == "a, b"
    assert listed([f"column{i}" for i in range(1000)], 30) == "column0, column1, column2 and 997 more"
    assert len(listed(["x" * 1000])) <= 60
