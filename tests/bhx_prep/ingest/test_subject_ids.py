"""Ids of tables and labels of subjects."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhx_model.errors import DataError
from bhx_prep.ingest.subject_ids import bring_together, find_id_column, label_of, of_sessions

LABELS = st.text("01aA", min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("names", "column"),
    [
        (["age", "participant_id"], "participant_id"),
        (["", "Unnamed: 0", "SUB_ID", "X", "subject"], "SUB_ID"),
        (["ScanDirID", "Site"], "ScanDirID"),
        (["Subject", "Age"], "Subject"),
        (["Participant ID"], "Participant ID"),
        (["#participant_id"], "#participant_id"),
        (["name", "age"], None),
    ],
)
def test_the_column_of_ids(names, column):
    assert find_id_column(names) == column
    assert find_id_column(["participant_id", "RID"], ["RID"]) == "RID"


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("sub-01", "01"),
        ("SUB-01", "01"),
        ("Sub_01", "01"),
        ("subject01", "subject01"),
        ("50002.0", "50002"),
        ("50002.00", "50002"),
        ("NDAR_INV0A1", "NDARINV0A1"),
        ("002_S_0295", "002S0295"),
        ("sub-A-1", "A1"),
        ("12E34", "12E34"),
        ("'01", "01"),
        ("50002.000", "50002"),
    ],
)
def test_an_id_as_bids_has_it(text, label):
    assert label_of(text) == label


@pytest.mark.parametrize(
    "text",
    ["1-Mar", "Mar-01", "01-mar-2024", "2024-03-01", "2024-03-01 00:00:00", "3/1/2024", "1.3.24",
     "5.00E+04", "1E+5", "../x", "a b", "é", "#REF!", "50002.5", "1.000", "12,000", "-", "sub-"],
)  # fmt: skip
def test_what_is_no_id(text):
    with pytest.raises(DataError) as error:
        label_of(text)
    assert len(str(error.value)) <= 200


@pytest.mark.parametrize(
    ("labels", "subjects", "anew", "unclear"),
    [
        (["50002"], ["0050002"], {"50002": "0050002"}, {}),
        (["abc"], ["ABC"], {"abc": "ABC"}, {}),
        (["01", "1"], ["1", "01"], {}, {}),
        (["1", "001"], ["01"], {}, {"01": ["001", "1"]}),
        (["1"], ["01", "001"], {}, {"001": ["1"], "01": ["1"]}),
        (["1"], ["1", "01"], {}, {"01": ["1"]}),
        (["0"], ["00"], {"0": "00"}, {}),
        (["x1"], ["x01"], {}, {}),
    ],
)
def test_ids_match_labels(labels, subjects, anew, unclear):
    assert bring_together(labels, subjects) == (anew, unclear)


@given(st.sets(LABELS, max_size=8), st.sets(LABELS, max_size=8))
def test_nobody_is_meant_twice_and_equal_labels_mean_each_other(labels, subjects):
    anew, unclear = bring_together(labels, subjects)
    meant = [anew.get(label, label) for label in labels]
    assert len(set(meant)) == len(meant)
    assert all(label not in anew for label in labels & subjects)
    assert set(anew.values()) <= subjects - labels
    assert not set(unclear) & set(meant)


def test_ids_of_sessions_of_many():
    subjects = [f"NDARINV{i}" for i in range(20_000)]
    ids = [f"NDAR_INV{i}" for i in range(20_000)]
    began = time.process_time()
    assert of_sessions([*ids, "NDARINV7-2", "sub-NDARINV8_ses-1"], subjects) == {
        "NDARINV7-2": "NDARINV7", "sub-NDARINV8_ses-1": "NDARINV8",
    }  # fmt: skip
    assert time.process_time() - began < 2
