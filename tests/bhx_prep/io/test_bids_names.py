"""Names of scans: composed and taken apart again, and nothing dangerous gets in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhx_model.contract import check_key, roi_sha256
from bhx_prep.io import bids_names

LABEL = st.from_regex(r"[A-Za-z0-9]{1,12}", fullmatch=True)


@given(subject=LABEL, values=st.dictionaries(st.sampled_from(bids_names.SCAN_ENTITIES), LABEL))
def test_stem_survives_parsing(subject: str, values: dict[str, str]):
    name = bids_names.stem(subject, values)
    assert bids_names.parse(f"{name}_bold.nii.gz") == {"sub": subject, **values}


@given(subject=LABEL, values=st.dictionaries(st.sampled_from(bids_names.SCAN_ENTITIES), LABEL))
def test_keys_fit_the_contract(subject: str, values: dict[str, str]):
    assert check_key(bids_names.sample_key("abide1", subject, values)).startswith(f"abide1_sub-{subject}")


@pytest.mark.parametrize("bad", ["..", "0 1", "a/b", "", "x;rm", "-rf", "$(x)", "a\n"])
def test_dangerous_labels_are_refused(bad: str):
    with pytest.raises(ValueError, match="letters and digits"):
        bids_names.stem(bad, {})


@pytest.mark.parametrize("bad", ["Abide", "a-b", "1a", "..", ""])
def test_dangerous_cohorts_are_refused(bad: str):
    with pytest.raises(ValueError, match="lower-case"):
        bids_names.check_cohort(bad)


@pytest.mark.parametrize("bad", ["a_sub-1.bold", "sub-1", "a_sub-1_", "a_sub-../x", "A_sub-1"])
def test_keys_with_dots_or_paths_are_refused(bad: str):
    with pytest.raises(ValueError, match="cannot name a sample"):
        check_key(bad)


def test_roi_hash_depends_on_order_and_atlas():
    assert roi_sha256("x", ["a", "b"]) != roi_sha256("x", ["b", "a"])
    assert roi_sha256("x", ["a", "b"]) != roi_sha256("y", ["a", "b"])


def test_indices_are_numbers_and_labels_are_not():
    assert bids_names.unpadded({"run": "01", "echo": "002", "ses": "01", "acq": "007"}) == {
        "run": "1", "echo": "2", "ses": "01", "acq": "007",
    }  # fmt: skip
    assert bids_names.same_scan("a_sub-01_ses-01_task-rest_run-010") == "a_sub-01_ses-01_task-rest_run-10"
    assert bids_names.same_scan("a_sub-01_run-0") == "a_sub-01_run-0"
