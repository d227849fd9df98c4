"""Who is right where sidecar and header contradict each other."""

from __future__ import annotations

import pytest

from bhx_model.errors import DataError
from bhx_prep.ingest import repetition_time

BOTH = {"RepetitionTime": 2.0}


@pytest.mark.parametrize(
    ("sidecar", "measured", "options", "tr_s", "said"),
    [
        (BOTH, 2.001, {}, 2.0, None),
        (
            BOTH,
            1.0,
            {"derivative": True},
            2.0,
            "the sidecar says 2 s, the image header 1 s: the sidecar's is used",
        ),
        (BOTH, 2000.0, {"derivative": True}, 2.0, "the image header 2000 s: the sidecar's is used"),
        (BOTH, 1.0, {"tr": "header"}, 1.0, "the header's is used, as `tr` asks"),
        (BOTH, 1.0, {"tr": "sidecar"}, 2.0, "the sidecar's is used, as `tr` asks"),
        (BOTH, 1.0, {"tr": "header", "derivative": True}, 1.0, "the header's is used"),
        (BOTH, 1.0, {"tr_s": 1.5}, 1.5, "the cohort's tr_s of 1.5 s is used"),
        (BOTH, 1.0, {"tr_s": 2.0, "derivative": True}, 2.0, "the cohort's tr_s of 2 s is used"),
        (BOTH, 1.0, {"tr_s": 1.5, "tr": "header"}, 1.0, "as `tr` asks"),
        (
            {"RepetitionTime": 2000},
            2.0,
            {"tr": "header"},
            2.0,
            "the sidecar says 2000 s, the image header 2 s",
        ),
        ({"RepetitionTime": "2,0"}, None, {"tr_s": 2.0}, 2.0, "the sidecar says '2,0': the cohort's tr_s"),
        ({}, 2000.0, {"tr_s": 2.0}, 2.0, "the image header says 2000 s: the cohort's tr_s of 2 s is used"),
        (BOTH, 2.0, {"tr_s": 1.0}, 2.0, "used, and not the cohort's tr_s of 1 s"),
        (BOTH, None, {"tr_s": 1.0}, 2.0, None),
        (BOTH, None, {"tr": "header"}, 2.0, None),
        ({}, 2.0, {"tr": "sidecar"}, 2.0, None),
        ({}, None, {"tr_s": 0.8, "tr": "header"}, 0.8, None),
    ],
)
def test_one_of_them_is_used_and_the_note_says_which(sidecar, measured, options, tr_s, said):
    seconds, note = repetition_time.choose(sidecar, measured, **options)
    assert seconds == tr_s
    assert note is None if said is None else said in note


@pytest.mark.parametrize(
    ("sidecar", "measured", "options", "said"),
    [
        (BOTH, 1.0, {}, "or say which is right with the cohort's `tr`"),
        (BOTH, 2000.0, {"tr": "header"}, "the repetition time in the image header is 2000: milliseconds?"),
        ({"RepetitionTime": 2000}, 2.0, {"derivative": True}, "RepetitionTime in the sidecar is 2000"),
        ({"RepetitionTime": 0}, None, {}, "no scanner is that fast"),
        ({"VolumeTiming": [0, 1, 5]}, None, {"tr_s": 1.0}, "not evenly spaced"),  # no number replaces that
        ({}, None, {}, "set the cohort's tr_s"),
    ],
)
def test_what_cannot_be_decided_is_refused(sidecar, measured, options, said):
    with pytest.raises(DataError, match=r".") as refusal:
        repetition_time.choose(sidecar, measured, **options)
    assert said in str(refusal.value)
